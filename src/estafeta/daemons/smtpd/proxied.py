"""DATA and BDAT when a before-queue filter takes the message: what receive.py does with cleanup, with ``proxy`` in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estafeta.daemons.smtpd import received_line
from estafeta.daemons.smtpd.proxy import ProxyTransaction, log_end

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session
    from estafeta.daemons.smtpd.transaction import Transaction


async def begin(session: Session, transaction: Transaction, proxy: ProxyTransaction) -> bytes:
    """DATA: the filter will take content, and has the headers that are ours; b"", or the reply that refuses."""
    refusal = await proxy.data()
    if not refusal and not session.closed:
        actions = session.facts.actions
        if actions is not None and actions.prepend:
            await proxy.content(actions.prepended)
        if session.forwarded is None:  # else it is no hop of its own
            await proxy.content(received_line.received_header(session, transaction))
    return refusal


async def end(session: Session, transaction: Transaction, proxy: ProxyTransaction, verb: str) -> None:
    """The content is complete: the filter decides."""
    reply = await proxy.end()
    log_end(session, reply, transaction.recipients[0].address)
    if session.closed:
        return
    if verb == "bdat":
        session.counts["bdat/ok"] += 1
    session.end_transaction()
    if reply[:1] == b"2":
        session.forgive()
        session.reply(reply)
        return
    session.errors += 1
    session.counts[verb + "/ok"] -= 1
    session.reply(reply)
    if reply[:4] in (b"421 ", b"521 "):
        session.flush()
        session.close()


def log_too_big(session: Session, transaction: Transaction) -> None:
    """The message is larger than message_size_limit: the filter does not get its end."""
    session.warning("NOQUEUE: queue file size limit exceeded")
    log_end(session, b"552 5.3.4 Error: message file too big", transaction.recipients[0].address)

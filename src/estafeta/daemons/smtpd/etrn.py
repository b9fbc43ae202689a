"""ETRN: deliver what waits for a domain, now.

Source: RFC 1985, ETRN_README, postconf(5) fast_flush_domains, smtpd_etrn_restrictions. Postfix keeps a log of deferred mail for
each eligible domain in flush(8); our queue manager knows the deferred queue, so it is asked directly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estafeta.daemons.smtpd.access import is_hostname
from estafeta.daemons.smtpd.stages import check
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import QueueCommand, QueueCommandReply
from estafeta.mail.text import to_bytes, to_text
from estafeta.protocol.smtp_server import Command
from estafeta.tables.table import LookupFailed

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session


async def etrn_command(session: Session, command: Command) -> None:
    """ETRN domain, @domain or #queue."""
    argument = to_text(command.argument)
    if session.transaction is not None:
        session.failed(b"ETRN", b"503 Error: MAIL transaction in progress")
        return
    if not argument or " " in argument:
        session.failed(b"ETRN", b"500 Syntax: ETRN domain")
        return
    domain = argument[1:] if argument[0] in "@#" else argument
    if not is_hostname(domain) and not domain.startswith("["):
        session.failed(b"ETRN", b"501 Error: invalid parameter syntax")
        return
    session.facts.etrn_domain = domain
    try:
        verdict = await check(session, "etrn", "ETRN")
    finally:
        session.facts.etrn_domain = ""
    if verdict is not None:
        session.failed(b"ETRN", verdict.reply)
        return
    try:
        eligible = await session.service.fast_flush_domains.match(domain)
        if not eligible:
            session.warning(f"reject: ETRN {domain}... from {session.where}")
            session.failed(b"ETRN", to_bytes(f"459 <{domain}>: service unavailable"))
            return
        reply = await session.service.qmgr.call(QueueCommand("flush_site", [domain]))
        done = isinstance(reply, QueueCommandReply) and reply.ok
    except (LookupFailed, ServiceLost) as error:
        session.warning(f"ETRN {domain}: {error}")
        done = False
    if done:
        session.ok(b"ETRN", b"250 Queuing started")
    else:
        session.failed(b"ETRN", b"458 Unable to queue messages")

"""The commands about the session itself: HELO, EHLO, RSET, NOOP, QUIT.

Source: RFC 5321 sections 4.1.1.1, 4.1.1.5, 4.1.1.9, 4.1.1.10.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estafeta.daemons.smtpd.authentication import with_offer
from estafeta.daemons.smtpd.other_client import ehlo_lines
from estafeta.daemons.smtpd.stages import check
from estafeta.mail.text import to_text
from estafeta.protocol.smtp_server import Command

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session


async def helo_command(session: Session, command: Command) -> None:
    """HELO and EHLO."""
    verb = command.verb
    settings = session.service.settings
    name = to_text(command.argument)
    if not name:
        session.failed(verb, b"501 Syntax: " + verb + b" hostname")
        return
    session.drop_transaction()
    before = session.helo
    session.helo = session.facts.helo = name
    if not settings.delay_reject and session.refused is None:
        refused = await check(session, "helo", verb.decode())
        if refused is not None:
            session.helo = session.facts.helo = before
            session.failed(verb, refused.reply)
            return
    session.facts.esmtp = verb == b"EHLO"
    session.protocol = "ESMTP" if session.facts.esmtp else "SMTP"
    hostname = settings.myhostname.encode()
    if verb == b"HELO":
        session.ok(verb, b"250 " + hostname)
        return
    offered = settings.ehlo_lines if session.tls is None else settings.ehlo_lines_tls
    authentication = session.service.authentication
    if authentication is not None:
        offered = with_offer(offered, await authentication.offer(session))
    lines = (hostname, *offered)
    if session.may_xclient or session.may_xforward:
        lines = ehlo_lines(session, lines)
    text = b"".join(b"250-" + line + b"\r\n" for line in lines[:-1]) + b"250 " + lines[-1]
    session.ok(verb, text)


async def rset_command(session: Session, command: Command) -> None:
    """RSET: the transaction goes."""
    if command.argument:
        session.failed(b"RSET", b"501 5.5.4 Syntax: RSET")
        return
    session.drop_transaction()
    session.ok(b"RSET", b"250 2.0.0 Ok")


async def noop_command(session: Session, command: Command) -> None:
    """NOOP."""
    session.ok(b"NOOP", b"250 2.0.0 Ok")


async def quit_command(session: Session, command: Command) -> None:
    """QUIT."""
    session.counts["quit"] += 1
    session.counts["quit/ok"] += 1
    session.reply(b"221 2.0.0 Bye")
    session.flush()
    session.close()



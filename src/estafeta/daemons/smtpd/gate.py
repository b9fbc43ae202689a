"""What is wrong with a command before it is looked at: no SMTP at all, no UTF-8, too long, sent without waiting.

Source: postconf(5) smtpd_forbidden_commands, RFC 2920, RFC 6531. Invariant: what may be part of credentials (behind AUTH) is not
logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estafeta.daemons.smtpd import authentication
from estafeta.mail.text import to_text
from estafeta.protocol.smtp_server import Command

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session

KNOWN = frozenset((b"HELO", b"EHLO", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET", b"NOOP", b"QUIT", b"VRFY", b"ETRN",
                   b"AUTH", b"STARTTLS", b"XCLIENT", b"XFORWARD"))  # fmt: skip
LAST_OF_GROUP = frozenset((b"HELO", b"EHLO", b"DATA", b"NOOP", b"VRFY"))  # RFC 2920 section 3.1


async def turned_away(session: Session, command: Command) -> bool:
    """Answer a line that is not to be taken for a command; False if it may be one. A line that is too long is only logged."""
    verb, line = command.verb, command.line
    settings = session.service.settings
    if not _is_utf8(line):
        session.reply(b"500 5.5.2 Error: bad UTF-8 syntax")
        session.count_error()
        return True
    if (
        verb in settings.forbidden_commands
        or b":" in verb
        or (verb not in KNOWN and await session.service.forbidden_commands.match(to_text(verb)))
    ):
        session.counts["unknown"] += 1
        text = "(not shown after AUTH)" if session.counts["auth"] else _escaped(line[:100])
        session.warning(f"non-SMTP command from {session.where}: {text}")
        session.reply_now(b"221 2.7.0 Error: I can break rules, too. Goodbye.")
        session.close()
        return True
    if len(line) >= settings.line_length_limit:
        start = "AUTH" if verb == b"AUTH" else "" if session.counts["auth"] else to_text(line[:30])
        session.warning(f"{session.where}: request longer than {settings.line_length_limit}: {start}...")
    return False


def improper_pipelining(session: Session, verb: bytes) -> None:
    """RFC 2920: the client must wait for the answer to this command. reject_unauth_pipelining asks for it."""
    if verb in (b"QUIT", b"AUTH") or (verb not in KNOWN and verb not in LAST_OF_GROUP):
        return
    session.facts.pipelined = True
    rest = "..." if session.counts["auth"] else _escaped(authentication.without_secrets(session.machine.peek(100)))
    session.info(f"improper command pipelining after {verb.decode()} from {session.where}: {rest}")


def _escaped(data: bytes) -> str:
    """Bytes for the log: line ends and what is not ASCII as escapes."""
    text = data.decode("latin-1").replace("\r", "\\r").replace("\n", "\\n").replace("\t", "\\t")
    return "".join(c if " " <= c <= "~" else f"\\{ord(c):03o}" for c in text)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True

"""XCLIENT and XFORWARD: an authorized client says that it is, or speaks for, another one.

Source: XCLIENT_README, XFORWARD_README, postconf(5) smtpd_authorized_xclient_hosts and smtpd_authorized_xforward_hosts; replies and
log lines as observed. XCLIENT changes whom access lists, log and Received see, until the session ends; XFORWARD changes only what
is logged and told to delivery agents, until the transaction ends. Without those parameters this costs a session nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from estafeta.config.config import Config
from estafeta.daemons.smtpd import gate
from estafeta.daemons.smtpd.client_attributes import (
    TEMPUNAVAIL,
    XCLIENT_NAMES,
    XFORWARD_NAMES,
    BadAttribute,
    is_known,
    parse_attributes,
)
from estafeta.daemons.smtpd.stages import check
from estafeta.dns.client_name import NameStatus
from estafeta.ipc.messages import Envelope
from estafeta.mail.text import to_text
from estafeta.protocol.smtp_server import Command
from estafeta.tables.match_list import NamadrList
from estafeta.tables.table import LookupFailed, OpenOptions

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session

_OF_CLIENT = frozenset(("NAME", "ADDR", "PORT", "PROTO", "HELO"))


@dataclass(slots=True)
class Forwarded:
    """What XFORWARD said about one message's client."""

    values: dict[str, str]

    def get(self, name: str, otherwise: str) -> str:
        value = self.values.get(name, "")
        return value if is_known(value) else otherwise

    @property
    def has_client(self) -> bool:
        """Whether it says anything about the client: then nothing of the session's own is mixed in."""
        return not _OF_CLIENT.isdisjoint(self.values)

    def log_suffix(self) -> str:
        """What is added to the ``client=`` line."""
        text = ""
        ident = self.get("IDENT", "")
        if ident:
            text += f", orig_queue_id={ident}"
        if self.has_client:
            address = self.get("ADDR", "")
            text += f", orig_client={self.get('NAME', 'unknown')}" + (f"[{address}]" if address else "")
        return text

    def fill(self, envelope: Envelope) -> None:
        """Put it in the place of the session's own client."""
        source = self.values.get("SOURCE", "")
        if is_known(source):
            envelope.rewrite_context = source.lower()
        if not self.has_client:
            return
        envelope.client_name = self.get("NAME", "unknown")
        envelope.client_address = self.get("ADDR", "unknown")
        envelope.client_port = self.get("PORT", "unknown")
        envelope.helo_name = self.get("HELO", "")
        envelope.protocol = self.get("PROTO", "unknown")
        envelope.reverse_client_name = "unknown"


class OtherClients:
    """Who may use the two commands. False when nobody may."""

    def __init__(self, config: Config, options: OpenOptions) -> None:
        parents = config.words("parent_domain_matches_subdomains")

        def opened(name: str) -> NamadrList | None:
            value = config.get(name)
            return NamadrList(value, options, name, match_parents=name in parents) if value else None

        self._xclient = opened("smtpd_authorized_xclient_hosts")
        self._xforward = opened("smtpd_authorized_xforward_hosts")
        protocols = {word.lower() for word in config.words("inet_protocols")} or {"all"}
        self.ipv4 = not protocols.isdisjoint(("ipv4", "all"))
        self.ipv6 = not protocols.isdisjoint(("ipv6", "all"))

    def __bool__(self) -> bool:
        return self._xclient is not None or self._xforward is not None

    async def look_at(self, session: Session) -> None:
        """Note what this session's client may do."""
        session.may_xclient = await self.may_xclient(session)
        session.may_xforward = await self._may(session, self._xforward)

    async def may_xclient(self, session: Session) -> bool:
        """Whether the client (as it is now) may use XCLIENT."""
        return await self._may(session, self._xclient)

    async def _may(self, session: Session, hosts: NamadrList | None) -> bool:
        if hosts is None:
            return False
        try:
            return await hosts.match(session.facts.client_name, session.facts.client_address)
        except LookupFailed as error:
            session.warning(str(error))
            return False


def ehlo_lines(session: Session, lines: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The reply to EHLO with the keywords that this client may use."""
    discard = session.service.settings.discard_ehlo_keywords
    own = []
    if session.may_xclient and "xclient" not in discard:
        own.append(("XCLIENT " + " ".join(XCLIENT_NAMES)).encode())
    if session.may_xforward and "xforward" not in discard:
        own.append(("XFORWARD " + " ".join(XFORWARD_NAMES)).encode())
    place = next((number for number, line in enumerate(lines) if line in _BEHIND), len(lines))
    return (*lines[:place], *own, *lines[place:])


_BEHIND = frozenset((b"ENHANCEDSTATUSCODES", b"8BITMIME", b"DSN", b"SMTPUTF8", b"CHUNKING"))


def _attributes(session: Session, command: Command, allowed: bool) -> dict[str, str] | None:
    """The command's attributes; None when it was refused (and answered)."""
    verb = command.verb
    if session.transaction is not None:
        session.failed(verb, b"503 5.5.1 Error: MAIL transaction in progress")
        return None
    if not command.argument:
        session.failed(verb, b"501 5.5.4 Syntax: " + verb + b" attribute=value...")
        return None
    if not allowed:
        session.failed(verb, b"550 5.7.0 Error: insufficient authorization")
        return None
    clients = session.service.other_clients
    try:
        return parse_attributes(verb.decode(), to_text(command.argument), ipv4=clients.ipv4, ipv6=clients.ipv6)
    except BadAttribute as bad:
        session.failed(verb, b"501 5.5.4 " + str(bad).encode("utf-8", "surrogateescape"))
        return None


async def xforward_command(session: Session, command: Command) -> None:
    """XFORWARD: more about the client of the next message."""
    values = _attributes(session, command, session.may_xforward)
    if values is None:
        return
    if session.forwarded is None:
        session.forwarded = Forwarded({})
    session.forwarded.values.update(values)
    session.ok(b"XFORWARD", b"250 2.0.0 Ok")


def _status(value: str) -> NameStatus:
    if is_known(value):
        return NameStatus.OK
    return NameStatus.TEMPORARY if value == TEMPUNAVAIL else NameStatus.PERMANENT


async def xclient_command(session: Session, command: Command) -> None:
    """XCLIENT: from now on the session is another client's, and begins anew with the greeting."""
    values = _attributes(session, command, session.may_xclient)
    if values is None:
        return
    service = session.service
    if session.is_counted:
        service.limits.disconnected(session)
    session.counts["xclient"] += 1
    session.drop_transaction()
    session.machine.begin_again()
    facts = session.facts
    facts.esmtp = facts.pipelined = False
    facts.defer_if_permit = facts.session_defer = facts.message_defer = None
    session.helo = facts.helo = facts.sasl_username = facts.sasl_method = facts.sasl_sender = ""
    session.protocol = "SMTP"
    _take(session, values)
    session.where = f"{facts.client_name}[{facts.client_address}]"
    session.is_limited = False
    refusal = await service.limits.connected(session)
    if refusal is not None:
        session.reply_now(refusal)
        session.close()
        return
    session.may_xclient = await service.other_clients.may_xclient(session)
    session.refused = None if service.settings.delay_reject else await check(session, "client", "XCLIENT")
    if session.machine.has_input:
        gate.improper_pipelining(session, command.verb)
    session.reply(session.refused.reply if session.refused is not None else b"220 " + service.settings.banner)


def _take(session: Session, values: dict[str, str]) -> None:
    facts = session.facts
    for name, value in values.items():
        shown = value if is_known(value) else "unknown"
        if name == "NAME":
            facts.client_name, facts.name_status = shown, _status(value)
        elif name == "REVERSE_NAME":
            facts.reverse_name = session.reverse_name = shown
            facts.reverse_status = _status(value)
        elif name == "ADDR":
            facts.client_address = shown
        elif name == "PORT":
            session.port = facts.client_port = shown
        elif name == "HELO":
            session.helo = facts.helo = value if is_known(value) else ""
        elif name == "PROTO":
            session.protocol = value
            facts.esmtp = value == "ESMTP"
        elif name == "DESTADDR":
            facts.server_address = shown
        elif name == "DESTPORT":
            facts.server_port = shown
        elif name == "LOGIN" and session.service.authentication is not None:
            facts.sasl_username = value if is_known(value) else ""
            facts.sasl_method = "XCLIENT" if facts.sasl_username else ""

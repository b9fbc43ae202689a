"""AUTH: what is offered to whom, the conversation, what it leaves behind.

Source: RFC 4954, SASL_README, postconf(5) smtpd_sasl_*; replies and log lines as observed from smtpd(8). Invariant: what a client
says in AUTH is in no log line; only the account's name is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from estafeta.config.config import Config
from estafeta.mail.text import to_text
from estafeta.protocol.smtp_server import Command
from estafeta.sasl import app_conf
from estafeta.sasl.dovecot import DovecotServer
from estafeta.sasl.properties import MECHANISMS, Mechanism, read_options
from estafeta.sasl.server import ClientFacts, CyrusServer, Reply, SaslServer
from estafeta.sasl.vocabulary import SaslFailed, ServerNames, Unavailable
from estafeta.tables.match_list import AddressList, StringList
from estafeta.tables.table import LookupFailed, OpenOptions

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Z0-9_-]{1,20}")  # RFC 4422 section 3.1
_BEFORE_AUTH = (b"PIPELINING", b"SIZE", b"VRFY", b"ETRN", b"STARTTLS")  # Postfix's order


class Authentication:
    """What one smtpd service knows of SASL. Made with the master's privileges, only where AUTH is enabled."""

    def __init__(self, config: Config, options: OpenOptions, warn: Callable[[str], None]) -> None:
        """Raises ConfigError."""
        self._warn = warn
        clear, unknown = read_options(config.words("smtpd_sasl_security_options"))
        secured, also_unknown = read_options(config.words("smtpd_sasl_tls_security_options"))
        for word in unknown:
            raise config.error("smtpd_sasl_security_options", f'unknown security option "{word}"')
        for word in also_unknown:
            raise config.error("smtpd_sasl_tls_security_options", f'unknown security option "{word}"')
        self._options = (clear, secured)
        self.response_limit = config.int("smtpd_sasl_response_limit")
        self._old_clients = config.bool("broken_sasl_auth_clients")
        self._filter = StringList(config.get("smtpd_sasl_mechanism_filter"), options, "smtpd_sasl_mechanism_filter")
        exceptions = config.get("smtpd_sasl_exceptions_networks")
        self._exceptions = AddressList(exceptions, options, "smtpd_sasl_exceptions_networks") if exceptions else None
        self.adds_header = config.bool("smtpd_sasl_authenticated_header")
        self._known: dict[tuple[bool, tuple[str, ...]], tuple[bytes, ...]] = {}
        self.server = self._open(config)

    def _open(self, config: Config) -> SaslServer:
        names = ServerNames(
            config.get("myhostname"), config.get("smtpd_sasl_local_domain"), config.get("smtpd_sasl_service")
        )
        kind, path = config.get("smtpd_sasl_type"), config.get("smtpd_sasl_path")
        if kind == "dovecot":
            return DovecotServer(path, names)
        if kind != "cyrus":
            raise config.error("smtpd_sasl_type", f'unsupported SASL server implementation "{kind}" (specify cyrus or dovecot)')
        try:
            conf = app_conf.load(path, app_conf.places(config.get("cyrus_sasl_config_path"), config.directory))
        except OSError as error:
            raise config.error("smtpd_sasl_path", f"{error.filename}: {error.strerror}") from None
        for warning in conf.warnings:
            self._warn(warning)
        return CyrusServer(conf, names)

    def is_active(self, session: Session) -> bool:
        """Whether AUTH may be used now (smtpd_tls_auth_only)."""
        tls = session.service.settings.tls
        return session.tls is not None or not (tls.auth_only or tls.enforced)

    def options(self, session: Session) -> frozenset[str]:
        """The security options that hold now."""
        return self._options[session.tls is not None]

    async def offer(self, session: Session) -> tuple[bytes, ...]:
        """What EHLO says of it: none, one or two lines."""
        if not self.is_active(session):
            return ()
        try:
            if self._exceptions is not None and await self._exceptions.match(session.facts.client_address):
                return ()
            mechanisms = await self.server.mechanisms()
            return await self._lines(session, mechanisms)
        except Unavailable as error:
            session.warning(f"SASL: {error}")
        except LookupFailed as error:
            session.warning(str(error))
        return ()

    async def _lines(self, session: Session, mechanisms: Sequence[Mechanism]) -> tuple[bytes, ...]:
        options = self.options(session)
        names = tuple(mechanism.name for mechanism in mechanisms if mechanism.fits(options))
        key = (session.tls is not None, names)
        known = self._known.get(key)
        if known is not None:
            return known
        shown = " ".join([name for name in names if await self._filter.match(name)])
        lines: tuple[bytes, ...] = ()
        if shown:
            lines = (f"AUTH {shown}".encode(), f"AUTH={shown}".encode()) if self._old_clients else (f"AUTH {shown}".encode(),)
        else:
            session.warning("no SASL authentication mechanisms")
        self._known[key] = lines
        return lines


def with_offer(lines: tuple[bytes, ...], offer: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The lines of EHLO with those of AUTH where Postfix has them."""
    count = 0
    while count < len(lines) and lines[count].partition(b" ")[0] in _BEFORE_AUTH:
        count += 1
    return (*lines[:count], *offer, *lines[count:])


async def auth_command(session: Session, command: Command) -> None:
    """AUTH."""
    authentication = session.service.authentication
    words = command.argument.split()
    if authentication is None or not authentication.is_active(session):
        session.failed(b"AUTH", b"503 5.5.1 Error: authentication not enabled")
        return
    if session.facts.sasl_username:
        session.failed(b"AUTH", b"503 5.5.1 Error: already authenticated")
        return
    if session.transaction is not None:
        session.failed(b"AUTH", b"503 5.5.1 Error: MAIL transaction in progress")
        return
    if session.is_limited:
        refusal = await session.service.limits.exceeded(session, "auth")
        if refusal is not None:
            session.failed(b"AUTH", refusal)
            return
    if not 1 <= len(words) <= 2:
        session.failed(b"AUTH", b"501 5.5.4 Syntax: AUTH mechanism")
        return
    await _authenticate(session, authentication, _method(words[0]), words[1] if len(words) == 2 else None)


def _method(word: bytes) -> str:
    """The name of a mechanism; what may be anything else (a client that forgot the mechanism) is in no reply and no log line."""
    text = to_text(word)
    return text if _NAME.fullmatch(text) or text.upper() in MECHANISMS else "(unknown)"


async def _authenticate(session: Session, authentication: Authentication, method: str, initial: bytes | None) -> None:
    facts = session.facts
    client = ClientFacts(
        facts.client_address, session.port, facts.server_address, facts.server_port, encrypted=session.tls is not None
    )
    exchange = authentication.server.exchange(method, authentication.options(session), client)
    try:
        reply: Reply = await exchange.begin(initial)
        while reply.challenge is not None:
            session.reply(b"334 " + reply.challenge)
            line, too_long = await session.read_line(authentication.response_limit)
            if session.closed:
                return
            if too_long:
                session.warning(f"{session.where}: SASL response longer than {authentication.response_limit}")
                session.failed(b"AUTH", b"500 5.5.6 SASL response limit exceeded")
                return
            if line == b"*":
                session.warning(f"{session.where}: SASL {method} authentication aborted")
                session.failed(b"AUTH", b"501 5.7.0 Authentication aborted")
                return
            reply = await exchange.step(line)
    except SaslFailed as failed:
        _refuse(session, method, failed)
        return
    finally:
        exchange.abort()
    if session.closed:
        return
    facts.sasl_method, facts.sasl_username = method, reply.user
    session.ok(b"AUTH", b"235 2.7.0 Authentication successful")


def _refuse(session: Session, method: str, failed: SaslFailed) -> None:
    if session.closed:
        return
    if failed.detail:
        session.warning(f"SASL authentication failure: {_shown(failed.detail)}")
    user = _shown(failed.user) or "(unavailable)"
    reason = _shown(failed.reason)
    session.warning(f"{session.where}: SASL {method} authentication failed: {reason}, sasl_username={user}")
    if failed.temporary:
        session.failed(b"AUTH", f"454 4.7.0 Temporary authentication failure: {reason}".encode())
    else:
        session.failed(b"AUTH", f"535 5.7.8 Error: authentication failed: {reason}".encode())


def _shown(text: str) -> str:
    """Text of a client for one line of the log."""
    return _UNPRINTABLE.sub("?", text)


def log_tail(session: Session) -> str:
    """What ``client=`` lines say of it."""
    facts = session.facts
    tail = ""
    if facts.sasl_username:
        tail = f", sasl_method={facts.sasl_method}, sasl_username={facts.sasl_username}"
    if facts.sasl_sender:
        tail += f", sasl_sender={facts.sasl_sender}"
    return tail


_AUTH = re.compile(rb"\bAUTH\b", re.IGNORECASE)


def without_secrets(data: bytes) -> bytes:
    """Pipelined input as it may be logged: cut off where an AUTH command begins."""
    found = _AUTH.search(data)
    return data if found is None else data[: found.end()] + b" ..."

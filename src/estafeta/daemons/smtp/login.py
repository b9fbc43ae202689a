"""Logging in to a server: whose password, by which mechanism, and the conversation of AUTH.

Source: RFC 4954, SASL_README "Enabling SASL authentication in the Postfix SMTP/LMTP client", postconf(5) smtp_sasl_*; texts as
observed from smtp(8). Invariants: a server that is not in smtp_sasl_password_maps hears nothing of AUTH; a server that refuses is
not tried without; no secret is in a trouble's text or a log line.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from estafeta.config.config import Config
from estafeta.daemons.smtp.names import parameter_name
from estafeta.daemons.smtp.trouble import Peer, Trouble
from estafeta.mail.text import to_text
from estafeta.protocol.smtp_client import SmtpReply
from estafeta.protocol.smtp_client_phase import Phase
from estafeta.sasl.machines import client_machine
from estafeta.sasl.properties import MECHANISMS, Mechanism, read_options
from estafeta.sasl.vocabulary import (
    GENERIC,
    NO_MECHANISM,
    PROTOCOL,
    ClientMachine,
    Credentials,
    SaslFailed,
    WantKey,
    decode,
    encode,
)
from estafeta.system.immediate import WouldWait, run_now
from estafeta.tables.maps import Maps, parse_map_list
from estafeta.tables.match_list import StringList
from estafeta.tables.table import LookupFailed, OpenOptions

if TYPE_CHECKING:
    from estafeta.daemons.smtp.session import Session

_REMEMBERED_FAILURES = 1024


class Logins:
    """What one service knows of SASL. Made with the master's privileges, only where it is enabled."""

    def __init__(self, config: Config, options: OpenOptions, warn: Callable[[str], None], *, lmtp: bool) -> None:
        """Raises ConfigError."""
        self._warn = warn

        def own(name: str) -> str:
            return parameter_name(name, lmtp)

        kind = config.get(own("smtp_sasl_type"))
        if kind != "cyrus":
            raise config.error(own("smtp_sasl_type"), f'unsupported SASL client implementation "{kind}" (specify cyrus)')
        self._security: list[frozenset[str]] = []
        for name in ("smtp_sasl_security_options", "smtp_sasl_tls_security_options", "smtp_sasl_tls_verified_security_options"):
            wanted, unknown = read_options(config.words(own(name)))
            if unknown:
                raise config.error(own(name), f'unknown security option "{unknown[0]}"')
            self._security.append(wanted)
        name = own("smtp_sasl_password_maps")
        self._passwords = Maps(parse_map_list(config.get(name)), options, name)
        self._by_sender = config.bool(own("smtp_sender_dependent_authentication"))
        self._extension = config.get("recipient_delimiter")
        name = own("smtp_sasl_mechanism_filter")
        self._filter = StringList(config.get(name), options, name) if config.get(name) else None
        self.soft_bounce = config.bool(own("smtp_sasl_auth_soft_bounce"))
        self._authorize = config.bool("send_cyrus_sasl_authzid")
        self.service = "lmtp" if lmtp else "smtp"
        self._remember_s = config.seconds(own("smtp_sasl_auth_cache_time")) if config.get(own("smtp_sasl_auth_cache_name")) else 0.0
        self._failures: dict[bytes, tuple[float, Trouble]] = {}

    async def credentials(self, peer: Peer, destination: str, sender: bytes) -> Credentials | None:
        """What to log in with, None for nothing. Raises LookupFailed."""
        found: str | None = None
        if self._by_sender and sender:
            address = await self._passwords.find_address(to_text(sender), extension_delimiter=self._extension)
            found = None if address is None else address.value
        if found is None:
            found = await self._passwords.find(peer.host)
        if found is None and destination != peer.host:
            found = await self._passwords.find(destination)
        if found is None:
            return None
        user, _, password = found.partition(":")
        authorize = user if self._authorize else ""
        return Credentials(user, password.encode("utf-8", "surrogateescape"), authorize)

    def options(self, session: Session) -> frozenset[str]:
        """The security options that hold for this session."""
        return self._security[(1 + session.is_verified) if session.is_encrypted else 0]

    def offered(self, names: tuple[str, ...]) -> list[str]:
        """What smtp_sasl_mechanism_filter leaves of the server's mechanisms."""
        if self._filter is None:
            return list(names)
        try:
            return [name for name in names if run_now(self._filter.match(name))]
        except (LookupFailed, WouldWait) as error:
            self._warn(f"smtp_sasl_mechanism_filter: {error}")
            return []

    # -- smtp_sasl_auth_cache_name: what was refused is not tried again for a while ------------------------------------------

    def _key(self, peer: Peer, credentials: Credentials) -> bytes:
        text = "\0".join((peer.host, credentials.user, credentials.authorize_as)).encode("utf-8", "surrogateescape")
        return hashlib.sha256(text + b"\0" + credentials.password).digest()

    def remembered(self, peer: Peer, credentials: Credentials, now: float) -> Trouble | None:
        """The refusal that is still remembered."""
        known = self._failures.get(self._key(peer, credentials)) if self._remember_s else None
        return known[1] if known is not None and known[0] > now else None

    def remember(self, peer: Peer, credentials: Credentials, trouble: Trouble, now: float) -> None:
        """The server refused for good."""
        if not self._remember_s:
            return
        if len(self._failures) >= _REMEMBERED_FAILURES:
            self._failures.clear()
        text = trouble.text.replace("SASL authentication failed", "SASL [CACHED] authentication failed", 1)
        text = text.replace(peer.name, peer.host, 1)
        self._failures[self._key(peer, credentials)] = (now + self._remember_s, replace(trouble, text=text))


class Login:
    """One session's login. ``credentials`` None: the server hears nothing of it."""

    def __init__(self, logins: Logins, credentials: Credentials) -> None:
        self._logins = logins
        self.credentials = credentials
        self._machine: ClientMachine | None = None
        self.done = False

    def start(self, session: Session) -> Trouble | bool:
        """Begin; True when there is nothing to do, False when AUTH is under way."""
        features = session.machine.features
        peer = session.peer
        if "auth" not in features:
            return True
        known = self._logins.remembered(peer, self.credentials, session.loop.time())
        if known is not None:
            return known
        if not features.auth_mechanisms:
            session.warn(f"{peer.relay} offered null AUTH mechanism list")
        offered = self._logins.offered(features.auth_mechanisms)
        if not offered:
            text = (f"SASL authentication failed: server {peer.name} offered no compatible authentication mechanisms "
                    "for this type of connection security")  # fmt: skip
            return _trouble(peer, "4.7.0", text)
        mechanism = self._choose(offered, self._logins.options(session))
        if mechanism is None:
            session.warn("SASL authentication failure: No worthy mechs found")
            return self._cannot(peer, NO_MECHANISM)
        if not self.credentials.user.strip():
            session.warn("SASL authentication failure: All-whitespace username.")
            return self._cannot(peer, GENERIC)
        credentials = self.credentials if mechanism.name == "PLAIN" else replace(self.credentials, authorize_as="")
        self._machine = client_machine(mechanism.name, credentials, peer.host, self._logins.service)
        initial = self._machine.send(None)
        assert not isinstance(initial, WantKey)
        line = f"AUTH {mechanism.name}".encode()
        if initial is not None:
            line += b" " + (encode(initial) or b"=")
        session.machine.ask(Phase.AUTH, line)
        return False

    def _choose(self, offered: list[str], options: frozenset[str]) -> Mechanism | None:
        names = {name.upper() for name in offered}
        return next((known for known in MECHANISMS.values() if known.name in names and known.fits(options)), None)

    def reply(self, session: Session, reply: SmtpReply) -> Trouble | bool:
        """The server answered: True when it is done, False when it goes on."""
        peer = session.peer
        if reply.positive:
            self.done = True
            return True
        if reply.code // 100 != 3:
            return self._refused(session, reply)
        machine = self._machine
        if machine is None:
            return self._cannot(peer, PROTOCOL)
        try:
            challenge = decode(reply.lines[-1][4:].strip())
        except SaslFailed:
            return self._cannot(peer, PROTOCOL)
        return self._step(session, machine, challenge)

    def _step(self, session: Session, machine: ClientMachine, data: bytes) -> Trouble | bool:
        try:
            answer = machine.send(data)
        except StopIteration:
            session.warn("SASL authentication problem: attempting client step after doneflag")
            return self._cannot(session.peer, GENERIC)
        except SaslFailed as failed:
            if failed.detail:
                session.warn(f"SASL authentication failure: {failed.detail}")
            return self._cannot(session.peer, failed.reason)
        if isinstance(answer, WantKey):
            # Milliseconds or more of work, as many as the server likes: in a thread.
            derived = session.loop.run_in_executor(None, answer.derive)
            derived.add_done_callback(lambda done: self._derived(session, machine, done))
            return False
        session.machine.ask(Phase.AUTH, encode(answer or b""))
        return False

    def _derived(self, session: Session, machine: ClientMachine, done: asyncio.Future[bytes]) -> None:
        if session.closed or done.cancelled():
            return
        session.login_goes_on(self._step(session, machine, done.result()))

    def _refused(self, session: Session, reply: SmtpReply) -> Trouble:
        peer = session.peer
        status = reply.status
        if status[0] == "5" and self._logins.soft_bounce:
            status = "4" + status[1:]
        text = f"SASL authentication failed; server {peer.name} said: {reply.text}"
        trouble = _trouble(peer, status, text, reply.diagnostic)
        if reply.code // 100 == 5:
            self._logins.remember(peer, self.credentials, trouble, session.loop.time())
        return trouble

    def _cannot(self, peer: Peer, reason: str) -> Trouble:
        return _trouble(peer, "4.7.0", f"SASL authentication failed; cannot authenticate to server {peer.name}: {reason}")


def _trouble(peer: Peer, status: str, text: str, diagnostic: str = "") -> Trouble:
    return Trouble(status, text, throttle=True, relay=peer.relay, mta=peer.host, diagnostic=diagnostic)

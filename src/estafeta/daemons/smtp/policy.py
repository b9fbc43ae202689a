"""What the configuration says about one server: keywords to ignore, security that is asked for, sessions to keep.

Source: man 5 postconf smtp_discard_ehlo_keyword_address_maps, smtp_tls_policy_maps, smtp_sasl_auth_enable,
smtp_connection_cache_destinations. TLS and SASL are not implemented: mail that needs one of them is deferred, never
sent without.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

from estafeta.config.config import Config
from estafeta.daemons.smtp.names import parameter_name
from estafeta.daemons.smtp.session import Session
from estafeta.daemons.smtp.settings import Settings
from estafeta.daemons.smtp.trouble import Peer, Trouble
from estafeta.delivery.report import Delivery
from estafeta.mail.text import to_text
from estafeta.protocol.smtp_client import ClientOptions
from estafeta.system.immediate import WouldWait, run_now
from estafeta.tables.maps import Maps, parse_map_list
from estafeta.tables.match_list import DomainList
from estafeta.tables.table import LookupFailed, OpenOptions

_WELL_KNOWN = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465, "lmtp": 24}


class Policy:
    """See the module. Tables are opened here, with the master's privileges."""

    def __init__(self, config: Config, settings: Settings, warn: Callable[[str], None]) -> None:
        self._settings = settings
        self._warn = warn
        self._options = OpenOptions(warn=warn, utf8=config.bool("smtputf8_enable"), parameter=config.lookup)

        def maps(name: str) -> Maps:
            name = parameter_name(name, settings.lmtp)
            return Maps(parse_map_list(config.get(name)), self._options, name)

        self._cached = DomainList(settings.cache_destinations, self._options, "smtp_connection_cache_destinations")
        self._discard = maps("smtp_discard_ehlo_keyword_address_maps")
        self._tls_policy = maps("smtp_tls_policy_maps")
        self._sasl = config.bool(parameter_name("smtp_sasl_auth_enable", settings.lmtp))
        self._passwords = maps("smtp_sasl_password_maps")
        self._by_sender = config.bool(parameter_name("smtp_sender_dependent_authentication", settings.lmtp))
        self.default_port = _port(settings.port, warn)

    def warn_at_start(self) -> None:
        """Say once what this worker cannot do."""
        if self._sasl and self._passwords:
            self._warn("SASL authentication is not implemented: mail for servers with a password is deferred")
        if self._settings.tls_is_mandatory(self._settings.tls_level):
            self._warn(f"TLS is not implemented: with security level {self._settings.tls_level} all mail is deferred")

    def always_cached(self, destination: str) -> bool:
        """Whether smtp_connection_cache_destinations names the destination."""
        if not self._cached:
            return False
        try:
            return run_now(self._cached.match(destination.partition("]")[0].removeprefix("[").partition(":")[0]))
        except (LookupFailed, WouldWait):  # a table on the network is not asked for this
            return False

    async def client_options(self, peer: Peer) -> ClientOptions:
        """The options of a session with ``peer``."""
        options = self._settings.client
        if not self._discard:
            return options
        try:
            words = await self._discard.find(peer.address)
        except LookupFailed as error:
            self._warn(str(error))
            return options
        if words is None:
            return options
        return replace(options, discard_keywords=frozenset(words.lower().replace(",", " ").split()))

    async def refusal(
        self, peer: Peer, destination: str, delivery: Delivery
    ) -> Callable[[Session], Trouble | None] | None:
        """What to ask after hello: a function that gives the trouble, or None when nothing stands in the way."""
        text = await self._missing_security(peer, destination, delivery)
        if text is None:
            return None

        def check(session: Session) -> Trouble | None:
            if text == "tls":
                if "starttls" not in session.machine.features:
                    words = f"TLS is required, but was not offered by host {peer.name}"
                    return Trouble("4.7.4", words, throttle=True, relay=peer.relay, mta=peer.host)
                words = "TLS is required, but our TLS engine is unavailable"
                return Trouble("4.7.5", words, throttle=True, relay=peer.relay, mta=peer.host)
            return Trouble("4.7.0", text, throttle=True, relay=peer.relay, mta=peer.host)

        return check

    async def _missing_security(self, peer: Peer, destination: str, delivery: Delivery) -> str | None:
        settings = self._settings
        level = settings.tls_level
        try:
            if self._tls_policy:
                found = await self._tls_policy.find(destination)
                if found is not None:
                    level = found.split()[0].lower()
            if settings.tls_is_mandatory(level):
                return "tls"
            if self._sasl and self._passwords:
                keys = [peer.host, destination]
                if self._by_sender and delivery.request.envelope.sender:
                    keys.insert(0, to_text(delivery.request.envelope.sender))
                for key in keys:
                    if await self._passwords.find(key) is not None:
                        return f"SASL authentication is required by the configuration for {peer.name}, but not available"
        except LookupFailed as error:
            self._warn(str(error))
            return "client TLS or SASL configuration problem"
        return None


def _port(text: str, warn: Callable[[str], None]) -> int:
    if text.isascii() and text.isdigit() and 0 < int(text) < 65536:
        return int(text)
    if text in _WELL_KNOWN:
        return _WELL_KNOWN[text]
    try:
        return socket.getservbyname(text, "tcp")
    except OSError:
        warn(f"unknown service: {text}/tcp")
        return 25

"""What the configuration says about one server: keywords to ignore, security that is asked for, sessions to keep.

Source: man 5 postconf smtp_discard_ehlo_keyword_address_maps, smtp_tls_policy_maps, smtp_sasl_auth_enable,
smtp_connection_cache_destinations.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace

from estafeta.config.config import Config
from estafeta.daemons.smtp.dane import LOOKUPS_DISABLED, effective_policy
from estafeta.daemons.smtp.login import Login, Logins
from estafeta.daemons.smtp.names import parameter_name
from estafeta.daemons.smtp.secure import CONFIGURATION, Security, configuration_trouble
from estafeta.daemons.smtp.settings import Settings
from estafeta.daemons.smtp.trouble import Peer, Trouble
from estafeta.delivery.report import Delivery
from estafeta.dns.resolver import Resolver
from estafeta.protocol.smtp_client import ClientOptions
from estafeta.system.immediate import WouldWait, run_now
from estafeta.tables.maps import Maps, parse_map_list
from estafeta.tables.match_list import DomainList
from estafeta.tables.table import LookupFailed, OpenOptions
from estafeta.tls.client import ClientTls
from estafeta.tls.key_files import TlsSetupError
from estafeta.tls.policy import DANE, ClientPolicy, PolicyError, parse_policy, per_site_level, policy_keys

_WELL_KNOWN = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465, "lmtp": 24}


class Policy:
    """See the module. Tables are opened here, with the master's privileges."""

    def __init__(self, config: Config, settings: Settings, warn: Callable[[str], None], resolver: Resolver) -> None:
        self._resolver = resolver
        self._settings = settings
        self._warn = warn
        self._options = OpenOptions(warn=warn, utf8=config.bool("smtputf8_enable"), parameter=config.lookup)

        def maps(name: str) -> Maps:
            name = parameter_name(name, settings.lmtp)
            return Maps(parse_map_list(config.get(name)), self._options, name)

        self._cached = DomainList(settings.cache_destinations, self._options, "smtp_connection_cache_destinations")
        self._discard = maps("smtp_discard_ehlo_keyword_address_maps")
        self._tls_policy = maps("smtp_tls_policy_maps")
        self._per_site = maps("smtp_tls_per_site")
        self._plain = Security(ClientPolicy("none"), None, note_offer=settings.tls_note_offer)
        self._usual = ClientPolicy(settings.tls_level)
        self.tls = self._open_tls(config)
        self._logins: Logins | None = None
        if config.bool(parameter_name("smtp_sasl_auth_enable", settings.lmtp)):
            self._logins = Logins(config, self._options, warn, lmtp=settings.lmtp)
        self.default_port = _port(settings.port, warn)

    def warn_at_start(self) -> None:
        """Say once what this worker cannot do."""
        if self._usual.level == "half-dane":
            self._warn("TLS security level half-dane is not implemented: mail waits; use encrypt, verify or secure")
        elif self._usual.level in DANE:
            level = self._usual.level
            self._warn(f"TLS security level {level}: mail for servers with TLSA records waits: comparing them is not implemented")

    def _open_tls(self, config: Config) -> ClientTls | None:
        settings = self._settings
        if not (self._usual.wanted or settings.tls_wrapper or self._tls_policy or self._per_site):
            return None
        try:
            return ClientTls(config, lambda name: parameter_name(name, settings.lmtp))
        except TlsSetupError as error:
            self._warn(f"{error}: disabling TLS support")
            return None

    async def security(self, peer: Peer, destination: str) -> Security | Trouble:
        """What TLS the session with ``peer`` for mail to ``destination`` has to have."""
        settings = self._settings
        policy = self._usual
        if self._tls_policy or self._per_site:
            try:
                policy = await self._look_up(peer, destination)
            except PolicyError as error:
                self._warn(f'{self._tls_name}, next-hop destination "{destination}": {error}')
                self._warn(f"TLS policy lookup for {destination}/{peer.host}: {CONFIGURATION}")
                return configuration_trouble(peer)
            except LookupFailed as error:
                self._warn(f"TLS policy lookup for {destination}/{peer.host}: {error}")
                return configuration_trouble(peer)
        if policy.level in DANE:
            found = await self._dane(policy, peer, destination)
            if isinstance(found, Trouble):
                return found
            policy = found
        if settings.tls_wrapper and not policy.mandatory:
            name = parameter_name("smtp_tls_wrappermode", settings.lmtp)
            self._warn(f'{name} requires "{parameter_name("smtp_tls_security_level", settings.lmtp)} = encrypt" (or stronger)')
            return configuration_trouble(peer)
        if not policy.wanted:
            return self._plain
        if self.tls is None:
            if not policy.mandatory:
                return self._plain
            text = "TLS is required, but our TLS engine is unavailable"
            return Trouble("4.7.5", text, throttle=True, mta=peer.host)
        return Security(policy, self.tls, wrapper=settings.tls_wrapper)

    async def _dane(self, policy: ClientPolicy, peer: Peer, destination: str) -> ClientPolicy | Trouble:
        if policy.level == "half-dane":
            return Trouble("4.7.5", "TLS security level half-dane is not implemented", throttle=True, mta=peer.host)
        if self._settings.route.dnssec:
            found = await effective_policy(self._resolver, policy, peer)
            if isinstance(found, Trouble):
                self._warn(f"TLS policy lookup for {destination}/{peer.host}: {found.text}")
            return found
        self._warn(f"{destination}: {policy.level} {LOOKUPS_DISABLED}")
        if policy.level == "dane":
            return replace(policy, level="may")
        self._warn(f"TLS policy lookup for {destination}/{peer.host}: {CONFIGURATION}")
        return configuration_trouble(peer)

    @property
    def in_clear(self) -> Security:
        """No TLS at all."""
        return self._plain

    @property
    def _tls_name(self) -> str:
        return parameter_name("smtp_tls_policy_maps" if self._tls_policy else "smtp_tls_per_site", self._settings.lmtp)

    async def _look_up(self, peer: Peer, destination: str) -> ClientPolicy:
        if self._tls_policy:
            for key in policy_keys(destination):
                found = await self._tls_policy.find(key)
                if found is not None:
                    return parse_policy(found)
            return self._usual
        host = await self._per_site.find(peer.host)
        nexthop = await self._per_site.find(destination)
        return ClientPolicy(per_site_level(self._usual.level, host, nexthop))

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

    async def login(self, peer: Peer, destination: str, delivery: Delivery) -> Login | Trouble | None:
        """How to log in to ``peer`` for mail to ``destination``; None: not at all."""
        if self._logins is None:
            return None
        try:
            credentials = await self._logins.credentials(peer, destination, delivery.request.envelope.sender)
        except LookupFailed as error:
            self._warn(str(error))
            name = parameter_name("smtp_sasl_password_maps", self._settings.lmtp)
            self._warn(f"{delivery.request.envelope.queue_id}: {name} lookup error")
            text = f"local data error while talking to {peer.name}"
            return Trouble("4.3.0", text, throttle=True, relay=peer.relay, mta=peer.host)
        return Login(self._logins, credentials) if credentials is not None else None


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

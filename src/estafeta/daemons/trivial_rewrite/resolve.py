"""Where does mail for an address go: its class, transport, next hop. A pure function of configuration and look-ups.

Source: trivial-rewrite(8) DEFAULT DELIVERY and OPTIONAL ROUTING, transport(5), ADDRESS_CLASS_README, postconf(5)
sender_dependent_relayhost_maps, sender_dependent_default_transport_maps, relocated_maps.
Invariant: a table that cannot be asked gives ``failed=True``, never a wrong route.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.config.rewrite_rules import rewrite_rules
from estafeta.ipc.messages import AddressClass, Route
from estafeta.mail.address import quote_address, split_address, split_extension
from estafeta.mail.rewrite import to_standard_form
from estafeta.mail.text import to_bytes, to_text
from estafeta.tables.maps import Maps
from estafeta.tables.match_list import DomainList
from estafeta.tables.table import LookupFailed, OpenOptions


@dataclass(frozen=True, slots=True)
class TransportRule:
    """``transport:nexthop`` of a parameter or a transport(5) table; either part may be empty."""

    transport: str
    nexthop: str

    @staticmethod
    def parse(text: str) -> TransportRule:
        name, _, nexthop = text.strip().partition(":")
        return TransportRule(name.strip(), nexthop.strip())


class Resolver:
    """One set of routing rules: ordinary mail, or the variant for probes: $address_verify_transport_maps,
    $address_verify_local_transport, $address_verify_virtual_transport, $address_verify_relay_transport,
    $address_verify_default_transport, $address_verify_relayhost, $address_verify_sender_dependent_relayhost_maps,
    $address_verify_sender_dependent_default_transport_maps.
    """

    def __init__(self, config: Config, options: OpenOptions, *, own_addresses: frozenset[str], verify: bool = False):
        def parameter(name: str) -> str:
            return config.get("address_verify_" + name if verify else name)

        def maps(name: str, *, own: bool = False, literal: bool = False) -> Maps:
            """``literal``: results may not take up what a stranger wrote (transport(5), postconf(5))."""
            full = "address_verify_" + name if verify and not own else name
            return Maps(config.words(full), replace(options, substitution=False) if literal else options, full)

        self._rules = rewrite_rules(config)
        self._myhostname = config.get("myhostname")
        parents = set(config.words("parent_domain_matches_subdomains"))

        def domains(name: str) -> DomainList:
            return DomainList(config.get(name), options, name, match_parents=name in parents)

        self._own_addresses = own_addresses
        self._destinations = domains("mydestination")
        self._virtual_alias_domains = domains("virtual_alias_domains")
        self._virtual_mailbox_domains = domains("virtual_mailbox_domains")
        self._relay_domains = domains("relay_domains")
        self._transport_by_class = {
            AddressClass.LOCAL: self._required(parameter("local_transport"), "local_transport"),
            AddressClass.VIRTUAL_MAILBOX: self._required(parameter("virtual_transport"), "virtual_transport"),
            AddressClass.RELAY: self._required(parameter("relay_transport"), "relay_transport"),
            AddressClass.DEFAULT: self._required(parameter("default_transport"), "default_transport"),
        }
        self._relayhost = parameter("relayhost").strip()
        self._sender_relayhost = maps("sender_dependent_relayhost_maps", literal=True)
        self._sender_transport = maps("sender_dependent_default_transport_maps", literal=True)
        self._transport_maps = maps("transport_maps", literal=True)
        self._transport_parents = "transport_maps" in parents
        self._relocated = maps("relocated_maps", own=True)
        self._delimiter = config.get("recipient_delimiter")
        self._double_bounce = config.get("double_bounce_sender").encode()
        self._empty_recipient = to_bytes(config.get("empty_address_recipient"))
        self._unknown_code = "5.1.1"
        self._show_tables = config.bool("show_user_unknown_table_name")
        self._resolve_dequoted = config.bool("resolve_dequoted_address")
        self._numeric = config.bool("resolve_numeric_domain")

    @staticmethod
    def _required(text: str, name: str) -> TransportRule:
        rule = TransportRule.parse(text)
        if not rule.transport:
            raise ConfigError(f"main.cf: parameter {name}: empty transport name")
        return rule

    async def is_local_domain(self, domain: str) -> bool:
        """True if ``domain`` is a local destination: mydestination, or one of our addresses in brackets."""
        if domain.startswith("["):
            literal = domain[1:-1]
            if literal[:5].lower() == "ipv6:":
                literal = literal[5:]
            return literal.lower() in self._own_addresses
        return await self._destinations.match(domain)

    async def resolve(self, address: bytes, sender: bytes) -> Route:
        """The route for ``address`` (internal form)."""
        try:
            return await self._resolve(address, sender)
        except LookupFailed as error:
            return Route("", "", address, AddressClass.DEFAULT, failed=True, error=str(error))

    async def _resolve(self, address: bytes, sender: bytes) -> Route:
        if not address:
            address = self._empty_recipient
        address = to_standard_form(self._rules, address)
        # user%there@here, there!user@here: as long as "here" is us, look at what is behind it.
        while True:
            local, domain_bytes = split_address(address)
            domain = to_text(domain_bytes or b"").lower()
            if not domain:
                domain = self._myhostname.lower()
                address = local + b"@" + to_bytes(domain)
            if not (b"%" in local or b"!" in local or (self._resolve_dequoted and b"@" in local)):
                break
            if not await self.is_local_domain(domain):
                break
            inner = local.rstrip(b"@")
            routed = to_standard_form(self._rules, inner) if inner else inner
            if not inner or split_address(routed)[0] == local or routed == address:
                break
            address = routed
        if not local:
            address = self._empty_recipient + b"@" + to_bytes(domain)
        if self._numeric is False and domain.replace(".", "").isdigit() and domain.count(".") == 3:
            if domain in self._own_addresses:
                domain = f"[{domain}]"
                address = local + b"@" + to_bytes(domain)
            else:
                return self._invalid(address, f"bad address syntax: {to_text(address)}")
        kind = await self._classify(domain)
        rule = self._transport_by_class.get(kind)
        if self._relocated:
            moved = await self._relocated.find_address(
                to_text(address), extension_delimiter=self._delimiter, is_local=self.is_local_domain
            )
            if moved is not None:
                return Route("error", f"5.1.6 User has moved to {moved.value}", address, kind)
        if rule is None:  # a virtual alias domain: what was not rewritten does not exist
            table = " in virtual alias table" if self._show_tables else ""
            return Route("error", f"{self._unknown_code} User unknown{table}", address, kind)
        transport, nexthop = rule.transport, rule.nexthop or domain
        if kind in (AddressClass.DEFAULT, AddressClass.RELAY):
            transport, nexthop = await self._onward(kind, rule, domain, sender)
        found = await self._transport_entry(address, domain)
        if found is not None:
            transport, nexthop = self._override(found, kind, transport, nexthop, domain)
        if transport == "error" and not nexthop:
            nexthop = "5.0.0 Undeliverable"
        return Route(transport, nexthop, address, kind)

    def _invalid(self, address: bytes, text: str) -> Route:
        return Route("error", f"5.1.3 {text}", address, AddressClass.DEFAULT, error=text)

    async def _classify(self, domain: str) -> AddressClass:
        if await self.is_local_domain(domain):
            return AddressClass.LOCAL
        if await self._virtual_alias_domains.match(domain):
            return AddressClass.VIRTUAL_ALIAS
        if await self._virtual_mailbox_domains.match(domain):
            return AddressClass.VIRTUAL_MAILBOX
        if await self._relay_domains.match(domain):
            return AddressClass.RELAY
        return AddressClass.DEFAULT

    async def _onward(self, kind: AddressClass, rule: TransportRule, domain: str, sender: bytes) -> tuple[str, str]:
        transport, nexthop = rule.transport, rule.nexthop
        key = to_text(quote_address(sender)) if sender else "<>"
        if kind is AddressClass.DEFAULT and self._sender_transport:
            value = await self._find_by_sender(self._sender_transport, key)
            if value is not None and value.upper() != "DUNNO":
                override = TransportRule.parse(value)
                transport, nexthop = override.transport or transport, override.nexthop
        if nexthop:
            return transport, nexthop
        if self._sender_relayhost:
            value = await self._find_by_sender(self._sender_relayhost, key)
            if value is not None:
                return transport, domain if value.upper() == "DUNNO" and not self._relayhost else (
                    self._relayhost if value.upper() == "DUNNO" else value
                )
        return transport, self._relayhost or domain

    @staticmethod
    async def _find_by_sender(maps: Maps, key: str) -> str | None:
        value = await maps.find(key)
        if value is None and "@" in key:
            value = await maps.find("@" + key.rpartition("@")[2], partial=True)
        return value

    async def _transport_entry(self, address: bytes, domain: str) -> TransportRule | None:
        """transport(5): user+ext@domain, user@domain, domain, parents, ``*``."""
        maps = self._transport_maps
        if not maps:
            return None
        full = to_text(quote_address(address))
        value = await maps.find(full)
        if value is None:
            local, tail = split_address(address)
            user, extension = split_extension(local, self._delimiter.encode())
            if extension is not None:
                value = await maps.find(to_text(quote_address(user + b"@" + (tail or b""))), partial=True)
        if value is None and domain:
            value = await maps.find(domain, partial=True)
            rest = domain
            while value is None and "." in rest and not domain.startswith("["):
                dot = rest.index(".", 1) if "." in rest[1:] else -1
                if dot < 0:
                    break
                rest = rest[dot:]
                if self._transport_parents:
                    value = await maps.find(rest[1:], partial=True)
                else:
                    value = await maps.find(rest, partial=True)
        if value is None:
            value = await maps.find("*", partial=True)
        return None if value is None else TransportRule.parse(value)

    def _override(
        self, found: TransportRule, kind: AddressClass, transport: str, nexthop: str, domain: str
    ) -> tuple[str, str]:
        if found.transport:
            # A transport without a next hop resets the next hop to the recipient domain.
            if found.transport in ("error", "retry"):
                return found.transport, found.nexthop or "Address is undeliverable"
            return found.transport, found.nexthop or domain
        if found.nexthop:
            return transport, found.nexthop
        return transport, nexthop

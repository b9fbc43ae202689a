"""What all restrictions of one smtpd service share: configuration, tables' options, the resolver, the way to other services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from estafeta.clients.rewrite import RewriteClient
from estafeta.config.config import Config
from estafeta.daemons.smtpd.access.verdict import Facts, Scene, Verdict
from estafeta.dns.resolver import Resolver
from estafeta.ipc.messages import AddressClass, Route
from estafeta.tables.maps import Maps
from estafeta.tables.table import LookupFailed, OpenOptions

RunWords = Callable[[str, Scene], Awaitable["Verdict | str | None"]]


@dataclass(slots=True)
class Tools:
    """See the module. ``run_words`` walks restrictions that a table or policy server named."""

    config: Config
    options: OpenOptions
    rewrite: RewriteClient
    warn: Callable[[str], None]
    resolver: Resolver | None = None
    run_words: RunWords | None = None
    tables: dict[str, Maps] = field(default_factory=dict)

    def maps(self, spec: str) -> Maps:
        """An access table, opened once."""
        known = self.tables.get(spec)
        if known is None:
            known = self.tables[spec] = Maps([spec], self.options, spec)
        return known

    def dns(self) -> Resolver:
        """The resolver; raises LookupFailed where there is none."""
        if self.resolver is None:
            raise LookupFailed("dns", "no resolver")
        return self.resolver

    async def resolve(self, address: bytes, sender: bytes = b"") -> Route:
        """The route of an address; raises ServiceLost, LookupFailed."""
        route = await self.rewrite.resolve(address, sender)
        if route.failed:
            raise LookupFailed("trivial-rewrite", route.error)
        return route

    async def is_auth_destination(self, facts: Facts) -> bool:
        """May anybody send to this recipient (permit_auth_destination)?"""
        if not facts.recipient:
            return True
        route = await self.resolve(facts.recipient, facts.sender or b"")
        local = route.recipient.rpartition(b"@")[0]
        if b"@" in local or ((b"%" in local or b"!" in local) and route.address_class != AddressClass.LOCAL):
            return False  # sender-specified routing: postconf(5) allow_untrusted_routing
        return route.address_class != AddressClass.DEFAULT

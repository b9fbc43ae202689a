"""Is a recipient listed? The tables by address class, with rewriting tables seen first.

Source: LOCAL_RECIPIENT_README, ADDRESS_CLASS_README, postconf(5) reject_unlisted_recipient and the ``unknown_*_reject_code``s.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from estafeta.clients.rewrite import RewriteClient
from estafeta.config.config import Config
from estafeta.ipc.messages import AddressClass
from estafeta.mail.text import to_text
from estafeta.tables.maps import Maps
from estafeta.tables.table import LookupFailed, OpenOptions

_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|$)")
_MOVED = "5.1.6"  # relocated(5)


@dataclass(frozen=True, slots=True)
class _Class:
    maps: Maps
    code: int
    dsn: str
    text: str
    always: bool  # also when the table is empty (virtual alias domains)


class UnlistedCheck:
    """The tables of listed users."""

    def __init__(self, config: Config, options: OpenOptions, rewrite: RewriteClient) -> None:
        self._rewrite = rewrite

        def maps(name: str) -> Maps:
            return Maps(config.words(name), options, name)

        self._delimiter = config.get("recipient_delimiter")
        self._rewriting = [
            m for m in (maps("recipient_canonical_maps"), maps("canonical_maps"), maps("virtual_alias_maps")) if m
        ]
        self._relocated = maps("relocated_maps")
        show = config.bool("show_user_unknown_table_name")

        def text(table: str) -> str:
            return f"User unknown in {table}" if show else "User unknown"

        self._classes = {
            AddressClass.LOCAL: _Class(
                maps("local_recipient_maps"), config.int("unknown_local_recipient_reject_code"), "5.1.1",
                text("local recipient table"), False,
            ),
            AddressClass.VIRTUAL_ALIAS: _Class(
                Maps([], options), config.int("unknown_virtual_alias_reject_code"), "5.1.1",
                text("virtual alias table"), True,
            ),
            AddressClass.VIRTUAL_MAILBOX: _Class(
                maps("virtual_mailbox_maps"), config.int("unknown_virtual_mailbox_reject_code"), "5.1.1",
                text("virtual mailbox table"), False,
            ),
            AddressClass.RELAY: _Class(
                maps("relay_recipient_maps"), config.int("unknown_relay_recipient_reject_code"), "5.1.1",
                text("relay recipient table"), False,
            ),
        }  # fmt: skip

    async def problem(self, address: bytes, sender: bytes) -> tuple[int, str, str] | None:
        """(code, enhanced status, text) if the address is in a listed class and not listed. Raises LookupFailed."""
        if address.startswith(b"@"):
            return None
        route = await self._rewrite.resolve(address, sender)
        if route.failed:
            raise LookupFailed("trivial-rewrite", route.error)
        if route.transport in ("error", "retry"):
            default = "5.1.1" if route.transport == "error" else "4.1.1"
            found = _STATUS.match(route.nexthop)
            dsn, text = (found[1], route.nexthop[found.end() :]) if found else (default, route.nexthop)
            dsn = default[0] + dsn[1:]
            if route.address_class != AddressClass.VIRTUAL_ALIAS or dsn == _MOVED:
                return 450 if dsn.startswith("4") else 550, dsn, text or "Address is undeliverable"
        kind = self._classes.get(AddressClass(route.address_class))
        if kind is not None and kind.always and route.transport == "error":
            # trivial-rewrite's words: it has its own show_user_unknown_table_name.
            kind = replace(kind, text=route.nexthop.partition(" ")[2] or kind.text)
        if kind is None:
            return None
        key = to_text(route.recipient)
        for maps in self._rewriting:
            if await maps.find_address(key, extension_delimiter=self._delimiter, is_local=self._by_class(route.address_class)):
                return None
        if not kind.maps and not kind.always:
            return None
        if route.address_class == AddressClass.LOCAL and await self._is_special(key):
            return None
        if kind.maps and await kind.maps.find_address(
            key, extension_delimiter=self._delimiter, is_local=self._by_class(route.address_class)
        ):
            return None
        return kind.code, kind.dsn, kind.text

    @staticmethod
    async def _is_special(key: str) -> bool:
        return key.partition("@")[0].lower() in ("", '""', "postmaster", "double-bounce")

    @staticmethod
    def _by_class(address_class: int) -> Callable[[str], Awaitable[bool]]:
        """Partial keys without the domain are for local addresses."""
        local = address_class == AddressClass.LOCAL

        async def is_local(domain: str) -> bool:
            return local

        return is_local

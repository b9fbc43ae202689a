"""The value of a ``*_maps`` parameter: an ordered list of tables, asked in turn.

Source: postconf(5), canonical(5), virtual(5) TABLE SEARCH ORDER and ADDRESS EXTENSION. Invariants: the first hit
wins; a failure of any table asked before a hit is a failure of the look-up (LookupFailed), never "not found"; pattern
tables are asked with whole addresses only.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from estafeta.config.values import split_words
from estafeta.mail.address import addresses_in, quote_local, split_address, split_extension
from estafeta.tables.table import LookupFailed, OpenOptions, Table

IsLocal = Callable[[str], Awaitable[bool]]

# The partial keys of an address, in the order of canonical(5) and virtual(5).
FULL = "user+ext@domain"
BARE = "user@domain"
LOCAL_FULL = "user+ext"
LOCAL_BARE = "user"
DOMAIN = "@domain"
CANONICAL_ORDER = (FULL, BARE, LOCAL_FULL, LOCAL_BARE, DOMAIN)


def parse_map_list(value: str) -> list[str]:
    """The tables of a maps parameter: separated by commas or blanks, with { } groups kept whole."""
    return split_words(value)

_STRUCTURED = re.compile(rb'["<>():;\\\[]')
_BETWEEN = re.compile(rb"(@[^\s,@]+)[ \t]+(?=[^\s,])")


@dataclass(frozen=True, slots=True)
class AddressMatch:
    """A hit: the table's value, and the address extension (with its delimiter) that took no part in the key."""

    value: str
    unmatched_extension: str
    key_form: str


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


class Maps:
    """Tables in order."""

    __slots__ = ("_label", "_options", "tables")

    def __init__(self, specs: Sequence[str], options: OpenOptions | None = None, label: str = "maps") -> None:
        """Open ``specs``; one that cannot be opened warns and fails look-ups until it can."""
        from estafeta.tables.open import open_or_late

        self._options = options or OpenOptions()
        self._label = label
        self.tables: list[Table] = [open_or_late(spec, self._options) for spec in specs]

    def __bool__(self) -> bool:
        return bool(self.tables)

    def excludes(self, text: bytes) -> bool:
        """True if certainly no line of ``text`` (LF line ends) is found in any table; false says nothing.

        Pattern tables see it in one pass over the text. Not for line ends inside keys.
        """
        for table in self.tables:
            excludes: Callable[[bytes], bool] | None = getattr(table, "excludes", None)
            if excludes is None or not excludes(text):
                return False
        return True

    @property
    def label(self) -> str:
        """The parameter that names the tables."""
        return self._label

    async def find(self, key: str, partial: bool = False) -> str | None:
        """The first result for ``key``; ``partial``: not from pattern tables. Raises LookupFailed."""
        for table in self.tables:
            if partial and table.is_pattern:
                continue
            value = await table.lookup(key)
            if value is None:
                continue
            if not value:
                self._options.warn(f"{self._label} lookup of {key} returns an empty string result")
                self._options.warn(f"{table.name} should return NO RESULT in case of NOT FOUND")
                raise LookupFailed(table.name, "empty result")
            return value
        return None

    async def find_address(
        self,
        address: str,
        *,
        extension_delimiter: str = "",
        owner_request_special: bool = True,
        is_local: IsLocal | None = None,
        order: Sequence[str] = CANONICAL_ORDER,
    ) -> AddressMatch | None:
        """Look for ``address`` (internal form) and its partial keys in ``order``; raises LookupFailed.

        ``is_local`` tells whether a domain's addresses are also looked up without it (canonical(5): myorigin,
        mydestination, inet_interfaces, proxy_interfaces); without it they are not. Keys with a localpart that needs
        quotes are tried quoted, then as they are.
        """
        raw = _bytes(address)
        local, domain = split_address(raw)
        user, extension = split_extension(local, _bytes(extension_delimiter), owner_request_special)
        ext = "" if extension is None else _text(local[len(user) :])
        tail = b"" if domain is None else b"@" + domain
        local_domain: bool | None = None
        for form in order:
            bare = form in (BARE, LOCAL_BARE)
            if bare and extension is None:
                continue
            if form == DOMAIN:
                if domain is None or not local:
                    continue
                value = await self.find(_text(tail), partial=True)
                if value is not None:
                    return AddressMatch(value, "", form)  # an extension goes with its user
                continue
            part = user if bare else local
            if form in (LOCAL_FULL, LOCAL_BARE):
                if domain is None or is_local is None:
                    continue
                if local_domain is None:
                    local_domain = await is_local(_text(domain))
                if not local_domain:
                    continue
                suffix = b""
            else:
                suffix = tail
            value = await self._find_quoted(part, suffix, partial=form != FULL)
            if value is not None:
                return AddressMatch(value, ext if bare else "", form)
            if form == LOCAL_FULL and extension is None and LOCAL_BARE in order:
                continue
        return None

    async def _find_quoted(self, local: bytes, suffix: bytes, partial: bool) -> str | None:
        quoted = quote_local(local) if local else local
        value = await self.find(_text(quoted + suffix), partial)
        if value is None and quoted != local:
            value = await self.find(_text(local + suffix), partial)
        return value

    async def map_address(
        self,
        address: str,
        *,
        propagate: bool,
        extension_delimiter: str = "",
        owner_request_special: bool = True,
        is_local: IsLocal | None = None,
        order: Sequence[str] = CANONICAL_ORDER,
    ) -> list[str] | None:
        """The addresses (internal form) that ``address`` maps to, or None; raises LookupFailed.

        ``@otherdomain`` in a result stands for the same user there; with ``propagate`` an unmatched extension is put
        into each result.
        """
        match = await self.find_address(
            address,
            extension_delimiter=extension_delimiter,
            owner_request_special=owner_request_special,
            is_local=is_local,
            order=order,
        )
        if match is None:
            return None
        return expand_result(match, address, propagate)

    def close(self) -> None:
        """Close all tables."""
        for table in self.tables:
            table.close()


def expand_result(match: AddressMatch, address: str, propagate: bool) -> list[str]:
    """The addresses of a table's value, in internal form: see ``Maps.map_address``."""
    local, _ = split_address(_bytes(address))
    extension = _bytes(match.unmatched_extension) if propagate else b""
    results = []
    value = _bytes(match.value)
    if not _STRUCTURED.search(value):  # plain addresses may stand without commas between them
        value = _BETWEEN.sub(rb"\1, ", value)
    for found in addresses_in(value):
        if found.startswith(b"@"):
            # The same user, whole: its extension is in it already.
            results.append(_text(local + found))
            continue
        new_local, new_domain = split_address(found)
        tail = b"" if new_domain is None else b"@" + new_domain
        results.append(_text(new_local + extension + tail))
    return results

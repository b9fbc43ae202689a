"""Lists of patterns: mydestination, relay_domains, mynetworks and their kind.

Source: postconf(5) mydestination, relay_domains, mynetworks, parent_domain_matches_subdomains; DATABASE_README "lists
versus tables". Invariants: patterns are tried in order, the first that matches decides, ``!`` makes it decide "no"; a
``/file/name`` is replaced by its contents; a failing table is LookupFailed. Answers of lists without tables are kept in
a bounded memory, so that a busy client costs one dictionary look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from estafeta.config.values import split_words
from estafeta.tables.cidr import BadNetwork, Network, address_number, parse_network
from estafeta.tables.lines import logical_lines
from estafeta.tables.table import OpenOptions, Table, TableError, fold_key

_REMEMBERED = 1024
_MAX_FILE_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Item:
    """One pattern: plain text, a network, or a table."""

    positive: bool
    text: str
    table: Table | None
    network: Network | None = None


def _read_items(
    words: Sequence[str], options: OpenOptions, folded: bool, opener: Callable[[str], Table], depth: int = 0
) -> list[Item]:
    items: list[Item] = []
    for word in words:
        positive = True
        while word.startswith("!"):
            positive = not positive
            word = word[1:]
        if not word:
            raise TableError("no pattern after '!'")
        if word.startswith("/"):
            if depth >= _MAX_FILE_DEPTH:
                raise TableError(f"files nested too deeply: {word}")
            try:
                with open(word, encoding="utf-8", errors="surrogateescape", newline="") as file:
                    inner = [part for _, line in logical_lines(file.read()) for part in split_words(line)]
            except OSError as err:
                raise TableError(f"open file {word}: {err.strerror}") from err
            for item in _read_items(inner, options, folded, opener, depth + 1):
                items.append(Item(item.positive == positive, item.text, item.table))
        elif ":" in word and not word.startswith("[") and not _looks_like_ipv6(word):
            items.append(Item(positive, word, opener(word)))
        else:
            items.append(Item(positive, fold_key(word) if folded else word, None))
    return items


def _looks_like_ipv6(word: str) -> bool:
    return address_number(word.partition("/")[0]) is not None


class _List:
    """What the lists share: parsing, remembering."""

    _folded = True

    def __init__(
        self, value: str | Sequence[str], options: OpenOptions | None = None, label: str = ""
    ) -> None:
        """``value``: the parameter's value, or its words. Raises TableError for a file that cannot be read."""
        from estafeta.tables.open import open_or_late

        self._options = options or OpenOptions()
        self._label = label
        words = split_words(value) if isinstance(value, str) else list(value)
        self._items = self._prepare(
            _read_items(words, self._options, self._folded, lambda spec: open_or_late(spec, self._options))
        )
        self._static = all(item.table is None for item in self._items)
        self._known: dict[str, bool] = {}

    def _prepare(self, items: list[Item]) -> list[Item]:
        return items

    def __bool__(self) -> bool:
        return bool(self._items)

    def _remember(self, key: str, answer: bool) -> bool:
        if self._static:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = answer
        return answer

    def close(self) -> None:
        """Close the tables of the list."""
        for item in self._items:
            if item.table is not None:
                item.table.close()


class StringList(_List):
    """Strings that are equal but for case: authorized names, classes."""

    async def match(self, text: str) -> bool:
        """Whether ``text`` is in the list; raises LookupFailed."""
        known = self._known.get(text)
        if known is not None:
            return known
        folded = fold_key(text)
        for item in self._items:
            if item.table is not None:
                if await item.table.lookup(folded) is not None:
                    return item.positive
            elif item.text == folded:
                return self._remember(text, item.positive)
        return self._remember(text, False)


async def _match_domain(item: Item, name: str, parents: bool) -> bool:
    table = item.table
    if table is None:
        pattern = item.text
        if pattern == name:
            return True
        if pattern.startswith("."):
            return not parents and name.endswith(pattern)
        return parents and name.endswith(pattern) and name[-len(pattern) - 1] == "." and pattern != ""
    if await table.lookup(name) is not None:
        return True
    if table.is_pattern:
        return False
    dot = name.find(".")
    while dot >= 0:
        # x.y.z asks for y.z, or .y.z where parents do not stand for what is below them
        if await table.lookup(name[dot + 1 :] if parents else name[dot:]) is not None:
            return True
        dot = name.find(".", dot + 1)
    return False


class _DomainsList(_List):
    """A list with domains among its items."""

    def __init__(
        self,
        value: str | Sequence[str],
        options: OpenOptions | None = None,
        label: str = "",
        *,
        match_parents: bool = False,
    ) -> None:
        """``match_parents``: the parameter is in parent_domain_matches_subdomains."""
        super().__init__(value, options, label)
        self._parents = match_parents


class DomainList(_DomainsList):
    """Domains: ``example.com`` (and, with ``match_parents``, what is below it), ``.example.com``."""

    async def match(self, domain: str) -> bool:
        """Whether ``domain`` is in the list; raises LookupFailed."""
        known = self._known.get(domain)
        if known is not None:
            return known
        name = fold_key(domain)
        for item in self._items:
            if await _match_domain(item, name, self._parents):
                return self._remember(domain, item.positive)
        return self._remember(domain, False)


def _networks(items: list[Item], options: OpenOptions, label: str, names_too: bool) -> list[Item]:
    prepared = []
    for item in items:
        if item.table is not None:
            prepared.append(item)
            continue
        try:
            prepared.append(Item(item.positive, item.text, None, parse_network(item.text)))
        except BadNetwork as err:
            looks_numeric = item.text[:1] == "[" or not any("g" <= c <= "z" for c in item.text)
            if names_too and not looks_numeric:
                prepared.append(item)
                continue
            options.warn(f"{label or 'address list'}: {err}: skipping this pattern")
    return prepared


class AddressList(_List):
    """Client addresses: mynetworks."""

    def _prepare(self, items: list[Item]) -> list[Item]:
        return _networks(items, self._options, self._label, names_too=False)

    async def match(self, address: str) -> bool:
        """Whether the IPv4 or IPv6 ``address`` is in the list; raises LookupFailed."""
        known = self._known.get(address)
        if known is not None:
            return known
        number = address_number(address)
        for item in self._items:
            if item.table is not None:
                if await item.table.lookup(address) is not None:
                    return item.positive
            elif number is not None and item.network is not None and item.network.contains(*number):
                return self._remember(address, item.positive)
        return self._remember(address, False)


class NamadrList(_DomainsList):
    """Client names or addresses: smtpd_client_event_limit_exceptions, debug_peer_list and their kind."""

    def _prepare(self, items: list[Item]) -> list[Item]:
        return _networks(items, self._options, self._label, names_too=True)

    async def match(self, name: str, address: str) -> bool:
        """Whether the client's name or address is in the list; raises LookupFailed."""
        key = f"{name}\n{address}"
        known = self._known.get(key)
        if known is not None:
            return known
        number = address_number(address)
        folded = fold_key(name)
        for item in self._items:
            if item.network is not None:
                matched = number is not None and item.network.contains(*number)
            else:
                matched = bool(name) and await _match_domain(item, folded, self._parents)
                if not matched and item.table is not None:
                    matched = await item.table.lookup(address) is not None
            if matched:
                return self._remember(key, item.positive)
        return self._remember(key, False)

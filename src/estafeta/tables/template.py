"""The ``%`` expansions of external tables: queries made from a key, results made from a value.

Source: mysql_table(5), ldap_table(5) (query, result_format, domain, expansion_limit). Invariants: a key that lacks what one of
the templates asks for makes no query at all; every part of a key that goes into a query passes through the quoting of its
language; results are joined by commas, and one too many fails the look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from estafeta.tables.match_list import StringList
from estafeta.tables.source import Source
from estafeta.tables.table import LookupFailed, OpenOptions, TableError, fold_key, is_utf8

Quote = Callable[[str], str]

_LETTERS: Final = frozenset("sudSUD123456789")


def unquoted(text: str) -> str:
    """No quoting."""
    return text


class Template:
    """A text with ``%`` expansions."""

    __slots__ = ("_parts", "letters", "text")

    def __init__(self, text: str, place: str) -> None:
        """``place``: the configuration file, for the TableError that a wrong template raises."""
        self.text = text
        # Literal texts at even places, letters at odd ones.
        self._parts: list[str] = [""]
        at = 0
        while (found := text.find("%", at)) >= 0:
            letter = text[found + 1 : found + 2]
            self._parts[-1] += text[at:found]
            at = found + 2
            if letter == "%":
                self._parts[-1] += "%"
            elif letter in _LETTERS and letter:
                self._parts += [letter, ""]
            else:
                raise TableError(f"{place}: Invalid query template: {text}")
        self._parts[-1] += text[at:]
        self.letters = frozenset(self._parts[1::2])

    def expand(self, key: str, value: str, quote: Quote = unquoted) -> str | None:
        """The text for ``key``; small letters stand for ``value`` (in a query: the key). None: a part is not there."""
        parts = self._parts
        if len(parts) == 1:
            return parts[0]
        done = parts[:]
        for at in range(1, len(parts), 2):
            letter = parts[at]
            found = part_of(letter.lower(), value if letter.islower() else key)
            if found is None:
                return None
            done[at] = quote(found)
        return "".join(done)


def part_of(letter: str, address: str) -> str | None:
    """What ``%letter`` (small) stands for in ``address``, or None where it has no such part."""
    if letter == "s":
        return address
    user, at, domain = address.rpartition("@")
    if letter == "u":
        return (user or None) if at else address
    if not at or not domain:
        return None
    if letter == "d":
        return domain
    labels = domain.split(".")
    number = int(letter)
    return labels[-number] if number <= len(labels) else None


class Shape:
    """What all external tables with templates share: which keys are asked for, and how results are put together."""

    def __init__(self, source: Source, options: OpenOptions, result_name: str = "result_format") -> None:
        """Raises TableError."""
        self.name = f"{source.kind}:{source.name}"
        self._options = options
        self._fold = options.fold
        self._utf8 = options.utf8
        self.result = Template(source.text(result_name, "%s", 1), source.name)
        self._plain = self.result.text == "%s"
        self._limit = source.number("expansion_limit", 0)
        self._place = source.name
        domain = source.text("domain")
        self._domains = StringList(domain, options, "domain") if domain else None
        self._needed = frozenset(letter.lower() for letter in self.result.letters if letter not in "sud")

    def template(self, text: str) -> Template:
        """A template of the query, whose needs decide about keys too."""
        made = Template(text, self._place)
        self._needed |= frozenset(letter.lower() for letter in made.letters)
        return made

    async def key(self, key: str) -> str | None:
        """The key as it is asked for, or None when no query is to be made; may raise LookupFailed (domain tables)."""
        if self._utf8 and not is_utf8(key):
            return None
        if self._fold:
            key = fold_key(key)
        if not key:
            self._options.warn(f'table "{self.name}": empty query string -- ignored')
            return None
        if self._domains is not None:
            user, _, domain = key.rpartition("@")
            if not user or not domain or not await self._domains.match(domain):
                return None
        for letter in self._needed:
            if letter != "s" and part_of(letter, key) is None:
                return None
        return key

    def results(self, key: str, values: Iterable[str | None]) -> str | None:
        """The result of a look-up from what was found; None: nothing. Raises LookupFailed over expansion_limit."""
        found: list[str] = []
        for value in values:
            if value is None:
                continue
            if not value:
                self._options.warn(f'table "{self.name}": empty lookup result for: "{key}" -- ignored')
                continue
            text = value if self._plain else self.result.expand(key, value)
            if text is None:
                continue
            found.append(text)
            if 0 < self._limit < len(found):
                raise LookupFailed(self.name, f"Expansion limit exceeded for key '{key}'")
        if not found:
            return None
        joined = ",".join(found)
        if self._utf8 and not is_utf8(joined):
            raise LookupFailed(self.name, f"the value of key '{key}' is not UTF-8")
        return joined

    def close(self) -> None:
        """Close the tables of the domain list."""
        if self._domains is not None:
            self._domains.close()


def sql_query(source: Source) -> str:
    """The query of an SQL table: ``query``, or made from the older parameters. Raises TableError."""
    query = source.get("query")
    if query:
        return query
    if source.kind == "pgsql" and (function := source.text("select_function")):
        return f"SELECT {function}('%s')"
    table = source.text("table", "", 1)
    return (
        f"SELECT {source.text('select_field', '', 1)} FROM {table} WHERE {source.text('where_field', '', 1)} = '%s' "
        f"{source.text('additional_conditions')}"
    )

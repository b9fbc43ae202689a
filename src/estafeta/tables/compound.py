"""Tables made of tables: pipemap, unionmap, randmap; and a stand-in for a table that cannot be opened yet.

Source: DATABASE_README.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from estafeta.config.values import split_words
from estafeta.tables.braces import inside
from estafeta.tables.table import LookupFailed, OpenOptions, Table, TableError, is_utf8

OpenTable = Callable[[str, OpenOptions], Table]


def _members(kind: str, text: str, form: str) -> list[str]:
    body = inside(text)
    members = split_words(body) if body else []
    if not members:
        raise TableError(f'bad syntax: "{kind}:{text}"; need "{kind}:{{{form}...}}"')
    return members


class PipeTable:
    """pipemap:{...}: the result of each table is the key of the next."""

    def __init__(self, text: str, options: OpenOptions, open_table: OpenTable) -> None:
        """Raises TableError."""
        self.name = f"pipemap:{text}"
        self._tables = [open_table(spec, options) for spec in _members("pipemap", text, "type:name")]
        self.is_pattern = any(table.is_pattern for table in self._tables)

    async def lookup(self, key: str) -> str | None:
        """The result of the last table; raises LookupFailed."""
        result: str | None = key
        for table in self._tables:
            if result is None:
                return None
            result = await table.lookup(result)
        return result

    def close(self) -> None:
        """Close the members."""
        for table in self._tables:
            table.close()


class UnionTable:
    """unionmap:{...}: all results, joined by commas."""

    def __init__(self, text: str, options: OpenOptions, open_table: OpenTable) -> None:
        """Raises TableError."""
        self.name = f"unionmap:{text}"
        self._tables = [open_table(spec, options) for spec in _members("unionmap", text, "type:name")]
        self.is_pattern = any(table.is_pattern for table in self._tables)

    async def lookup(self, key: str) -> str | None:
        """The results of all tables; raises LookupFailed."""
        results = [found for table in self._tables if (found := await table.lookup(key)) is not None]
        return ",".join(results) if results else None

    def close(self) -> None:
        """Close the members."""
        for table in self._tables:
            table.close()


class RandomTable:
    """randmap:{...}: one of the results by chance."""

    is_pattern = True

    def __init__(
        self, text: str, options: OpenOptions, choose: Callable[[list[str]], str] = random.choice
    ) -> None:
        """Raises TableError."""
        self.name = f"randmap:{text}"
        self._utf8 = options.utf8
        self._choose = choose
        self._values = []
        for value in _members("randmap", text, "value"):
            group = inside(value) if value.startswith("{") else None
            self._values.append(value if group is None else group)

    async def lookup(self, key: str) -> str | None:
        """One of the values."""
        if self._utf8 and not is_utf8(key):
            return None
        return self._choose(self._values)

    def close(self) -> None:
        """Nothing to release."""


class LateTable:
    """Stands for a table that could not be opened: look-ups fail for now, and opening is tried again in a while."""

    def __init__(self, spec: str, reason: str, options: OpenOptions, open_table: OpenTable) -> None:
        self.name = spec
        self.is_pattern = spec.partition(":")[0] in ("regexp", "pcre", "cidr", "socketmap", "tcp")
        self._reason = reason
        self._options = options
        self._open = open_table
        self._table: Table | None = None
        self._next_s = options.clock() + options.check_interval_s

    async def lookup(self, key: str) -> str | None:
        """The value of ``key`` once the table is there; raises LookupFailed until then."""
        if self._table is None:
            now = self._options.clock()
            if now >= self._next_s:
                self._next_s = now + self._options.check_interval_s
                try:
                    self._table = self._open(self.name, self._options)
                except TableError as err:
                    self._reason = str(err)
            if self._table is None:
                raise LookupFailed(self.name, self._reason)
        return await self._table.lookup(key)

    def close(self) -> None:
        """Close the table if it is open."""
        if self._table is not None:
            self._table.close()

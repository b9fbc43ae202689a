"""The table of a query that a database server answers: mysql: and pgsql: over their connections.

Source: mysql_table(5), pgsql_table(5). Every column of every row is a value of the result.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from estafeta.tables.pool import Pool, Refused
from estafeta.tables.servers import Server
from estafeta.tables.source import Source
from estafeta.tables.table import OpenOptions
from estafeta.tables.template import Shape, Template, sql_query

Rows = list[list[str | None]]
TIME_LIMIT_S = 30.0


class Database(Protocol):
    """A connection to a database server."""

    def quote(self, text: str) -> str:
        """``text`` for the inside of a quoted string."""

    async def query(self, text: str) -> Rows | None:
        """The rows, None if the statement has no result set; raises Refused, Broken, OSError, EOFError."""

    def close(self) -> None:
        """Close at once."""


class _Asking:
    """A query's template over one connection: each quotes in its own way."""

    __slots__ = ("_database", "_needs_result", "_template")

    def __init__(self, database: Database, template: Template, needs_result: bool) -> None:
        self._database = database
        self._template = template
        self._needs_result = needs_result

    async def ask(self, key: str) -> Rows:
        """The rows for ``key``."""
        text = self._template.expand(key, key, self._database.quote)
        if text is None:
            return []
        rows = await self._database.query(text)
        if rows is None:
            if self._needs_result:
                raise Refused("the query returned no result set")
            return []
        return rows

    def close(self) -> None:
        """Close at once."""
        self._database.close()


class SqlTable:
    """See the module."""

    is_pattern = False

    def __init__(
        self,
        source: Source,
        options: OpenOptions,
        servers: Sequence[Server],
        connect: Callable[[Server], Awaitable[Database]],
        *,
        needs_result: bool = True,
    ) -> None:
        """Raises TableError."""
        self.name = f"{source.kind}:{source.name}"
        self._shape = Shape(source, options)
        template = self._shape.template(sql_query(source))

        async def connected(server: Server) -> _Asking:
            return _Asking(await connect(server), template, needs_result)

        self._pool: Pool[str, Rows] = Pool(
            self.name, servers, connected, warn=options.warn, time_limit_s=TIME_LIMIT_S,
            idle_s=source.number("idle_interval", 60, 1),
        )  # fmt: skip

    async def lookup(self, key: str) -> str | None:
        """The result of the query; raises LookupFailed."""
        asked = await self._shape.key(key)
        if asked is None or "\0" in asked:
            return None
        rows = await self._pool.ask(asked)
        return self._shape.results(asked, [value for row in rows for value in row]) if rows else None

    def close(self) -> None:
        """Close the connections."""
        self._shape.close()
        self._pool.close()

"""sqlite: tables.

Source: sqlite_table(5). The database is opened with the table, before the jail and as root, and read once so that everything
SQLite needs is open; it is never written. A look-up takes microseconds and runs where it is asked for; a database that is
locked by a writer is asked again for up to two seconds, meanwhile others go on.
"""

from __future__ import annotations

import sqlite3
import time
from urllib.parse import quote

from estafeta.tables.source import Source
from estafeta.tables.table import LookupFailed, OpenOptions, TableError
from estafeta.tables.template import Shape, sql_query

_BUSY_LIMIT_S = 2.0
_BUSY_PAUSE_S = 0.02


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float):
        text = f"{value:.15g}"
        return text if any(c in text for c in ".en") else text + ".0"
    return str(value)


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


class SqliteTable:
    """A query of an SQLite database."""

    is_pattern = False

    def __init__(self, name: str, options: OpenOptions) -> None:
        """Raises TableError."""
        source = Source("sqlite", name, options)
        self.name = f"sqlite:{name}"
        path = source.text("dbpath", "", 1)
        self._shape = Shape(source, options)
        self._query = self._shape.template(sql_query(source))
        try:
            self._database = sqlite3.connect(
                f"file:{quote(path)}?mode=ro", uri=True, timeout=0, check_same_thread=False, isolation_level=None
            )
            self._database.text_factory = _decoded
            self._database.execute("PRAGMA query_only = 1")
            self._read_once()
        except sqlite3.Error as error:
            raise TableError(f"open database {path}: {error}") from None

    def _read_once(self) -> None:
        try:
            self._database.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite3.OperationalError as error:
            if not _busy(error):
                raise

    async def lookup(self, key: str) -> str | None:
        """The result of the query; raises LookupFailed."""
        asked = await self._shape.key(key)
        if asked is None or "\0" in asked:
            return None
        query = self._query.expand(asked, asked, _quoted)
        if query is None:
            return None
        deadline = 0.0
        while True:
            try:
                rows = self._database.execute(query).fetchall()
                break
            except UnicodeEncodeError:
                return None  # no text in the database is equal to bytes that are no UTF-8
            except sqlite3.OperationalError as error:
                now = time.monotonic()
                deadline = deadline or now + _BUSY_LIMIT_S
                if not _busy(error) or now >= deadline:
                    raise LookupFailed(self.name, f"SQL query failed: {error}") from None
                await _pause()
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise LookupFailed(self.name, f"SQL query failed: {error}") from None
        return self._shape.results(asked, [_text(row[0]) for row in rows])

    def close(self) -> None:
        """Close the database."""
        self._shape.close()
        self._database.close()


def _busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


async def _pause() -> None:
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        time.sleep(_BUSY_PAUSE_S)  # noqa: ASYNC251 - a command: there is no loop to hold up
        return
    waiter = loop.create_future()

    def go_on() -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = loop.call_later(_BUSY_PAUSE_S, go_on)
    try:
        await waiter
    finally:
        timer.cancel()

"""memcache: tables, with or without a backup table behind the cache.

Source: memcache_table(5); memcached's protocol.txt. Invariants: without a backup a server that fails is a failure of the look-up;
with one the backup answers, and what it finds is put into the cache, whose failures then do not matter. A key that the protocol
cannot carry is in no cache.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress

from estafeta.tables.pool import Broken, Pool, Refused
from estafeta.tables.servers import Server, Streams, connect, parse_server
from estafeta.tables.source import Source
from estafeta.tables.table import LookupFailed, OpenOptions, Table, is_utf8
from estafeta.tables.template import Shape

_MAX_KEY = 250

OpenTable = Callable[[str, OpenOptions], Table]


class _Connection:
    """A request is a key to get, or a key and the whole command that stores its data."""

    def __init__(self, streams: Streams, data_limit: int) -> None:
        self._reader, self._writer = streams
        self._data_limit = data_limit

    async def ask(self, request: tuple[bytes, bytes | None]) -> bytes | None:
        """The data, None if there is none; for a command that stores, None."""
        key, store = request
        if store is not None:
            self._writer.write(store)
            answer = await self._line()
            if answer != b"STORED":
                raise Refused(f"update failed: {answer[:100].decode('utf-8', 'replace')}")
            return None
        self._writer.write(b"get " + key + b"\r\n")
        line = await self._line()
        if line == b"END":
            return None
        words = line.split()
        if len(words) < 4 or words[0] != b"VALUE" or not words[3].isdigit() or len(words[3]) > 9:
            raise Broken(f"unexpected reply: {line[:100].decode('utf-8', 'replace')}")
        length = int(words[3])
        if length > self._data_limit:
            self.close()
            raise Refused(f"{length} bytes of data are over data_size_limit")
        data = await self._reader.readexactly(length + 2)
        if data[-2:] != b"\r\n" or await self._line() != b"END":
            raise Broken("unexpected end of a reply")
        return data[:-2]

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except ValueError:
            raise Broken("the reply is over line_size_limit") from None
        if not line.endswith(b"\n"):
            raise Broken("the server closed the connection")
        return line.rstrip(b"\r\n")

    def close(self) -> None:
        """Close at once."""
        self._writer.close()


class MemcacheTable:
    """See the module."""

    is_pattern = False

    def __init__(self, name: str, options: OpenOptions, open_table: OpenTable) -> None:
        """Raises TableError."""
        source = Source("memcache", name, options)
        self.name = f"memcache:{name}"
        self._utf8 = options.utf8
        self._shape = Shape(source, options)
        self._key = self._shape.template(source.text("key_format", "%s", 1))
        self._ttl = source.number("ttl", 3600, 1)
        self._flags = source.number("flags", 0)
        self._tries = source.number("max_try", 2, 1)
        self._pause_s = source.number("retry_pause", 1, 1)
        timeout_s = source.number("timeout", 2, 1)
        data_limit = source.number("data_size_limit", 10240, 1)
        line_limit = source.number("line_size_limit", 1024, 1)
        backup = source.text("backup")
        self._backup = open_table(backup, options) if backup else None
        server = source.text("memcache", "inet:localhost:11211")

        async def connected(server: Server) -> _Connection:
            return _Connection(await connect(server, line_limit), data_limit)

        self._pool: Pool[tuple[bytes, bytes | None], bytes | None] = Pool(
            self.name, [parse_server(server, 11211)], connected, warn=options.warn, time_limit_s=timeout_s,
            connect_limit_s=timeout_s,
        )  # fmt: skip
        if self._backup is not None and hasattr(self._backup, "items"):
            self.items = self._all  # postmap -s

    def _all(self) -> Iterator[tuple[str, str]]:
        items: Iterator[tuple[str, str]] = self._backup.items()  # type: ignore[union-attr]
        return items

    async def lookup(self, key: str) -> str | None:
        """What the cache or its backup has; raises LookupFailed."""
        asked = await self._shape.key(key)
        if asked is None:
            return None
        text = self._key.expand(asked, asked)
        wire = None if text is None else text.encode("utf-8", "surrogateescape")
        if wire is not None and (len(wire) > _MAX_KEY or any(byte <= 0x20 or byte == 0x7F for byte in wire)):
            wire = None
        if wire is not None:
            try:
                data = await self._asked((wire, None))
            except LookupFailed:
                if self._backup is None:
                    raise
            else:
                if data is not None:
                    found = data.decode("utf-8", "surrogateescape")
                    if self._utf8 and not is_utf8(found):
                        raise LookupFailed(self.name, "the result is not UTF-8")
                    return found
        if self._backup is None:
            return None
        value = await self._backup.lookup(asked)
        if value is not None and wire is not None:
            data = value.encode("utf-8", "surrogateescape")
            command = b"set %b %d %d %d\r\n%b\r\n" % (wire, self._flags, self._ttl, len(data), data)
            with suppress(LookupFailed):  # the pool has warned of the server
                await self._pool.ask((wire, command))
        return value

    async def _asked(self, request: tuple[bytes, bytes | None]) -> bytes | None:
        for _ in range(self._tries - 1):
            try:
                return await self._pool.ask(request)
            except LookupFailed as error:
                if "no answer" not in error.reason and "reply" not in error.reason:
                    raise  # a server that takes no connection is not tried again
            loop = asyncio.get_running_loop()
            await loop.create_task(asyncio.sleep(self._pause_s))
        return await self._pool.ask(request)

    def close(self) -> None:
        """Close the connections and the backup."""
        self._shape.close()
        self._pool.close()
        if self._backup is not None:
            self._backup.close()

"""socketmap: tables: one netstring out, one back.

Source: socketmap_table(5). Asked with whole keys only. Replies other than OK and NOTFOUND are temporary failures.
"""

from __future__ import annotations

from estafeta.tables.pool import Broken, Pool
from estafeta.tables.servers import Server, Streams, connect, parse_server
from estafeta.tables.table import LookupFailed, OpenOptions, TableError, is_utf8

TIME_LIMIT_S = 100.0
_MAX_REPLY = 100_000
_IDLE_S = 10.0


class _Connection:
    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams

    async def ask(self, request: bytes) -> bytes:
        """The contents of the reply."""
        self._writer.write(b"%d:%b," % (len(request), request))
        try:
            digits = (await self._reader.readuntil(b":"))[:-1]
        except ValueError:
            raise Broken("malformed reply") from None
        if not digits.isdigit() or len(digits) > 9:
            raise Broken("malformed reply: no netstring")
        length = int(digits)
        if length > _MAX_REPLY:
            raise Broken(f"reply of {length} bytes is too long")
        body = await self._reader.readexactly(length + 1)
        if body[-1:] != b",":
            raise Broken("malformed reply: no netstring")
        return body[:-1]

    def close(self) -> None:
        """Close at once."""
        self._writer.close()


async def _connected(server: Server) -> _Connection:
    return _Connection(await connect(server))


class SocketmapTable:
    """socketmap:inet:host:port:name or socketmap:unix:path:name."""

    is_pattern = True

    def __init__(self, name: str, options: OpenOptions, time_limit_s: float = TIME_LIMIT_S) -> None:
        """Raises TableError."""
        self.name = f"socketmap:{name}"
        self._utf8 = options.utf8
        endpoint, _, remote = name.rpartition(":")
        if not remote or not endpoint.startswith(("inet:", "unix:")) or endpoint in ("inet:", "unix:"):
            raise TableError("socketmap requires server:socketmap argument")
        if endpoint.startswith("inet:") and ":" not in endpoint[5:]:
            raise TableError("socketmap requires server:socketmap argument")
        self._remote = remote.encode()
        self._pool: Pool[bytes, bytes] = Pool(
            self.name, [parse_server(endpoint, "")], _connected, warn=options.warn, time_limit_s=time_limit_s, idle_s=_IDLE_S
        )

    async def lookup(self, key: str) -> str | None:
        """The server's answer; raises LookupFailed."""
        if self._utf8 and not is_utf8(key):
            return None
        reply = await self._pool.ask(self._remote + b" " + key.encode("utf-8", "surrogateescape"))
        status, space, text = reply.decode("utf-8", "surrogateescape").partition(" ")
        if status == "NOTFOUND":
            return None
        if status == "OK" and space:
            if self._utf8 and not is_utf8(text):
                raise LookupFailed(self.name, "the result is not UTF-8")
            return text
        kinds = {"TEMP": "temporary", "TIMEOUT": "timeout", "PERM": "permanent"}
        raise LookupFailed(self.name, f"socketmap server {kinds.get(status, 'unknown')} error: {text}")

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

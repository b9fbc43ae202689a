"""tcp: tables: a line out, a line back.

Source: tcp_table(5). Asked with whole keys only. A reply that is neither 200 nor 500 is a temporary failure.
"""

from __future__ import annotations

import re

from estafeta.tables.pool import Broken, Pool
from estafeta.tables.servers import Server, Streams, connect, parse_server
from estafeta.tables.table import LookupFailed, OpenOptions, is_utf8

TIME_LIMIT_S = 100.0
_MAX_REPLY = 4096
_NO_CODE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CODE = re.compile(rb"%([0-9A-Fa-f]{2})")


def encode(key: str) -> bytes:
    """``key`` as it goes over the line."""
    return b"".join(
        bytes((byte,)) if 0x20 < byte < 0x7F and byte != 0x25 else b"%%%02X" % byte
        for byte in key.encode("utf-8", "surrogateescape")
    )


def decode(data: bytes) -> bytes | None:
    """What came over the line; None: malformed."""
    if _NO_CODE.search(data):
        return None
    return _CODE.sub(lambda match: bytes((int(match[1], 16),)), data)


class _Connection:
    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams

    async def ask(self, request: bytes) -> bytes:
        """The line of the reply, without its end."""
        self._writer.write(b"get " + request + b"\n")
        try:
            line = await self._reader.readline()
        except ValueError:
            raise Broken("the reply is too long") from None
        if not line.endswith(b"\n"):
            raise Broken("the server closed the connection")
        if len(line) > _MAX_REPLY:
            raise Broken("the reply is too long")
        return line.rstrip(b"\r\n")

    def close(self) -> None:
        """Close at once."""
        self._writer.close()


async def _connected(server: Server) -> _Connection:
    return _Connection(await connect(server, _MAX_REPLY))


class TcpTable:
    """tcp:host:port."""

    is_pattern = True

    def __init__(self, name: str, options: OpenOptions, time_limit_s: float = TIME_LIMIT_S) -> None:
        """Raises TableError."""
        self.name = f"tcp:{name}"
        self._utf8 = options.utf8
        self._pool: Pool[bytes, bytes] = Pool(
            self.name, [parse_server(name, "")], _connected, warn=options.warn, time_limit_s=time_limit_s
        )

    async def lookup(self, key: str) -> str | None:
        """The server's answer; raises LookupFailed."""
        if self._utf8 and not is_utf8(key):
            return None
        reply = await self._pool.ask(encode(key))
        status, text = reply[:3], reply[4:]
        if status == b"500" and reply[3:4] in (b" ", b"\t"):
            return None
        value = decode(text)
        if status != b"200" or reply[3:4] not in (b" ", b"\t") or value is None:
            what = "temporary error" if status == b"400" else "malformed reply"
            raise LookupFailed(self.name, f"{what}: {reply[:200].decode('utf-8', 'replace')}")
        found = value.lstrip(b" \t").decode("utf-8", "surrogateescape")
        if self._utf8 and not is_utf8(found):
            raise LookupFailed(self.name, "the result is not UTF-8")
        return found

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

"""The servers of a network table, and the way to one: a connected pair of streams.

Source: mysql_table(5), pgsql_table(5) hosts; memcache_table(5) memcache; socketmap_table(5). ``localhost`` needs no files and no
DNS, so that it works in a jail; other names are resolved by the system, beside the loop.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import NamedTuple

from estafeta.tables.table import TableError

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Server(NamedTuple):
    """``path`` of a UNIX-domain socket, or ``host`` and ``port``; ``options``: what the kind of table keeps with it."""

    path: str = ""
    host: str = ""
    port: int = 0
    options: object = None

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


def split_port(text: str, default: int | str) -> tuple[str, int]:
    """``host``, ``host:port`` or ``[address]:port`` apart; a port may be a service name. Raises TableError."""
    host, port = text, str(default)
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        if rest.startswith(":"):
            port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or not port:
        raise TableError(f'bad host or port in "{text}"')
    if port.isascii() and port.isdigit():
        number = int(port)
    else:
        import socket

        try:
            number = socket.getservbyname(port, "tcp")
        except OSError:
            raise TableError(f'host or service {text} not found: unknown service "{port}"') from None
    if not 0 < number < 65536:
        raise TableError(f'bad port in "{text}"')
    return host, number


def parse_server(text: str, default_port: int | str) -> Server:
    """``unix:/path``, ``inet:host:port`` or ``host:port``. Raises TableError."""
    if text.startswith("unix:"):
        if not text[5:]:
            raise TableError(f'no path in "{text}"')
        return Server(path=text[5:])
    if text.startswith("/"):
        return Server(path=text)
    return Server("", *split_port(text.removeprefix("inet:"), default_port))


async def connect(server: Server, limit: int = 1 << 16) -> Streams:
    """A connection; raises OSError. ``limit``: bytes of a line."""
    if server.path:
        return await asyncio.open_unix_connection(server.path, limit=limit)
    if server.host.lower() != "localhost":
        return await asyncio.open_connection(server.host, server.port, limit=limit)
    try:
        return await asyncio.open_connection("127.0.0.1", server.port, limit=limit)
    except OSError as error:
        try:
            return await asyncio.open_connection("::1", server.port, limit=limit)
        except OSError:
            raise error from None


def tls_context(
    *, ca_file: str = "", ca_path: str = "", cert: str = "", key: str = "", verify: bool = False, names: bool = True
) -> ssl.SSLContext:
    """How to speak TLS; files are read now. Raises TableError."""
    try:
        if verify:
            context = ssl.create_default_context(cafile=ca_file or None, capath=ca_path or None)
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if cert:
            context.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(name for name in (ca_file, ca_path, cert, key) if name)
        raise TableError(f"TLS files {files}: {error}") from None
    context.check_hostname = verify and names
    context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
    return context

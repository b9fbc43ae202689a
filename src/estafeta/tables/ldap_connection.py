"""One connection to an LDAP server: TLS, bind, one search at a time.

Source: RFC 4511, RFC 4513; ldap_table(5) bind, start_tls, version.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

from estafeta.tables import ldap_message as ldap
from estafeta.tables.pool import Broken, Refused
from estafeta.tables.servers import Server, Streams, connect

_MAX_MESSAGE = 16 << 20
NO_SUCH_OBJECT, SIZE_LIMIT = 32, 4
# The server is in no state to answer; another one may be.
_SERVER_TROUBLE = frozenset((51, 52, 80))  # busy, unavailable, other


@dataclass(frozen=True, slots=True)
class Login:
    """How to connect; ``sasl`` is the name of a mechanism (EXTERNAL, PLAIN), ``wrapped`` (by Server.options) TLS from the start."""

    bind: bool = True
    name: str = ""
    password: str = ""
    version: int = 3
    sasl: str = ""
    authorize: str = ""
    start_tls: bool = False
    tls: ssl.SSLContext | None = None


class LdapConnection:
    """See the module."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams
        self._number = 0

    async def _read(self) -> tuple[int, bytes]:
        """Tag and contents of the next operation that answers the last request."""
        while True:
            head = await self._reader.readexactly(2)
            if head[0] != 0x30:
                raise Broken("the server does not speak LDAP")
            length = head[1]
            if length & 0x80:
                size = length & 0x7F
                if not 0 < size <= 4:
                    raise Broken("a malformed message from the server")
                length = int.from_bytes(await self._reader.readexactly(size), "big")
            if length > _MAX_MESSAGE:
                raise Broken("the server's answer is too large")
            content = await self._reader.readexactly(length)
            try:
                number, tag, body = ldap.read_message(content)
            except ldap.Malformed as error:
                raise Broken(f"a malformed message from the server: {error}") from None
            if number == self._number:
                return tag, body
            if number == 0:
                raise Broken("the server ends the connection")

    def _send(self, operation: bytes) -> None:
        self._number += 1
        self._writer.write(ldap.message(self._number, operation))

    async def _done(self, expected: int, what: str) -> None:
        tag, body = await self._read()
        if tag != expected:
            raise Broken(f"an unexpected answer to {what}")
        result = _result(body)
        if result.code:
            raise Refused(f"{what}: {result.code} ({result.text or 'no text'})")

    async def login(self, login: Login, host: str) -> None:
        """Raises Refused, Broken, OSError, EOFError."""
        if login.start_tls and login.tls is not None:
            self._send(ldap.element(ldap.EXTENDED, ldap.element(0x80, ldap.START_TLS)))
            await self._done(ldap.EXTENDED_REPLY, "STARTTLS")
            await self._writer.start_tls(login.tls, server_hostname=host or "localhost")
        if not login.bind:
            return
        if login.sasl:
            credentials = ldap.text_bytes(login.authorize)
            if login.sasl == "PLAIN":
                credentials += b"\0" + ldap.text_bytes(login.name) + b"\0" + ldap.text_bytes(login.password)
            self._send(ldap.sasl_bind(login.sasl, credentials))
        else:
            self._send(ldap.bind(login.version, login.name, login.password))
        await self._done(ldap.BIND_REPLY, f"unable to bind as {login.name or 'anonymous'}")

    async def ask(self, request: ldap.Search) -> list[ldap.Entry]:
        """The entries; raises Refused, Broken, OSError, EOFError."""
        self._send(ldap.search(request))
        entries: list[ldap.Entry] = []
        while True:
            tag, body = await self._read()
            if tag == ldap.ENTRY:
                try:
                    entries.append(ldap.read_entry(body))
                except ldap.Malformed as error:
                    raise Broken(f"a malformed entry from the server: {error}") from None
            elif tag == ldap.DONE:
                result = _result(body)
                if result.code in (0, NO_SUCH_OBJECT):
                    return entries
                if result.code in _SERVER_TROUBLE:
                    raise Broken(f"search error {result.code}: {result.text}")
                what = "size_limit is exceeded" if result.code == SIZE_LIMIT else f"search error {result.code}: {result.text}"
                raise Refused(what)
            elif tag != ldap.REFERENCE:
                raise Broken("an unexpected answer to a search")

    def close(self) -> None:
        """Say good-bye, and close."""
        if not self._writer.is_closing():
            self._send(bytes((ldap.UNBIND, 0)))
        self._writer.close()


def _result(body: bytes) -> ldap.Result:
    try:
        return ldap.read_result(body)
    except ldap.Malformed as error:
        raise Broken(f"a malformed result from the server: {error}") from None


async def log_in(server: Server, login: Login) -> LdapConnection:
    """A connection that is ready for searches; raises Refused, Broken, OSError, EOFError."""
    streams = await connect(server)
    connection = LdapConnection(streams)
    try:
        if server.options == "ldaps" and login.tls is not None:
            await streams[1].start_tls(login.tls, server_hostname=server.host)
        await connection.login(login, server.host)
    except BaseException as error:
        streams[1].close()
        if isinstance(error, asyncio.IncompleteReadError):
            raise Broken("the server closed the connection during the login") from None
        raise
    return connection

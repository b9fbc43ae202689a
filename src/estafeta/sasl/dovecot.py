"""smtpd_sasl_type = dovecot: Dovecot's auth service has the mechanisms and the passwords; we carry base64 to and fro.

Source: Dovecot's authentication protocol 1.1 (doc/auth-protocol.txt), SASL_README "Configuring Dovecot SASL". One
connection is shared by a worker's sessions, requests have numbers. Invariants: nothing with a tab or a line end goes out as a
value; a connection that is lost fails its requests as temporary, and the next request makes a new one.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from estafeta.sasl.properties import (
    FORWARD_SECRECY,
    MUTUAL_AUTH,
    NOACTIVE,
    NOANONYMOUS,
    NODICTIONARY,
    NOPLAINTEXT,
    Mechanism,
)
from estafeta.sasl.server import ClientFacts, Exchange, Reply
from estafeta.sasl.vocabulary import SaslFailed, ServerNames, Unavailable

_CONNECT_S = 10.0
_REPLY_S = 30.0  # Dovecot holds back who failed for up to 15 seconds
_MAX_LINE = 65536
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_LOST = "Connection lost to authentication server"
_ESCAPE = re.compile(r"\x01([01trn])")
_UNESCAPED = {"0": "\0", "1": "\x01", "t": "\t", "r": "\r", "n": "\n"}
_WEAKNESS = {"plaintext": NOPLAINTEXT, "active": NOACTIVE, "dictionary": NODICTIONARY, "anonymous": NOANONYMOUS}
_STRENGTH = {"forward-secrecy": FORWARD_SECRECY, "mutual-auth": MUTUAL_AUTH}


def parse_mechanism(fields: Sequence[str]) -> Mechanism:
    """``NAME, flag, flag ...`` of a MECH line."""
    flags = set(fields[1:])
    satisfied = {option for flag, option in _WEAKNESS.items() if flag not in flags}
    satisfied |= {option for flag, option in _STRENGTH.items() if flag in flags}
    return Mechanism(fields[0].upper(), frozenset(satisfied))


def parameters(fields: Sequence[str]) -> dict[str, str]:
    """``name=value`` and bare words of an answer."""
    found = {}
    for text in fields:
        name, _, value = text.partition("=")
        found[name] = _ESCAPE.sub(lambda match: _UNESCAPED[match[1]], value)
    return found


def _value(text: str) -> str:
    return re.sub(r"[\t\r\n\0\x01]", "", text)


class _Stale(Unavailable):
    """The connection ended before the answer came."""


@dataclass(slots=True, eq=False)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    mechanisms: list[Mechanism] = field(default_factory=list)
    waiting: dict[int, asyncio.Future[list[str]]] = field(default_factory=dict)
    last: int = 0
    pump: asyncio.Task[None] | None = None


class DovecotServer:
    """See SaslServer."""

    def __init__(self, path: str, names: ServerNames) -> None:
        """``path``: a socket below the queue directory, or inet:host:port."""
        self.path = path
        self.names = names
        self._connection: _Connection | None = None
        self._opening: asyncio.Task[_Connection] | None = None

    async def mechanisms(self) -> Sequence[Mechanism]:
        return (await self.connection()).mechanisms

    def exchange(self, mechanism: str, options: frozenset[str], client: ClientFacts) -> Exchange:
        return _DovecotExchange(self, mechanism.upper(), options, client)

    def close(self) -> None:
        if self._connection is not None and self._connection.pump is not None:
            self._connection.pump.cancel()

    async def connection(self) -> _Connection:
        """The one that is open, or a new one; raises Unavailable."""
        connection = self._connection
        if connection is not None:
            return connection
        if self._opening is None:
            # One task for all who wait; it has the time limit that needs a task.
            self._opening = asyncio.get_running_loop().create_task(self._open())
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except TimeoutError:
            raise Unavailable(f"Connect to Dovecot auth socket '{self.path}' failed: Connection timed out") from None
        except OSError as error:
            reason = error.strerror or "lost connection"
            raise Unavailable(f"Connect to Dovecot auth socket '{self.path}' failed: {reason}") from None
        finally:
            if self._opening is opening and opening.done():
                self._opening = None

    async def _open(self) -> _Connection:
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await self._connect()
            try:
                connection = _Connection(reader, writer)
                writer.write(b"VERSION\t1\t1\nCPID\t%d\n" % os.getpid())
                while True:
                    line = await reader.readline()
                    if not line.endswith(b"\n"):
                        raise ConnectionError(0, "lost connection")
                    fields = line.decode("utf-8", "replace").rstrip("\n").split("\t")
                    if fields[0] == "VERSION" and fields[1:2] != ["1"]:
                        raise ConnectionError(0, "unsupported protocol version")
                    if fields[0] == "MECH" and len(fields) > 1:
                        connection.mechanisms.append(parse_mechanism(fields[1:]))
                    if fields[0] == "DONE":
                        break
            except BaseException:
                writer.close()
                raise
        self._connection = connection
        connection.pump = asyncio.get_running_loop().create_task(self._pump(connection))
        return connection

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        kind, colon, rest = self.path.partition(":")
        if colon and kind == "inet":
            host, _, port = rest.rpartition(":")
            host = host.removeprefix("[").removesuffix("]") or "localhost"
            return await asyncio.open_connection(host, int(port) if port.isdigit() else port, limit=_MAX_LINE)
        path = rest if colon and kind == "unix" else self.path
        return await asyncio.open_unix_connection(path, limit=_MAX_LINE)

    async def _pump(self, connection: _Connection) -> None:
        """Hand every answer to who waits for it."""
        try:
            while line := await connection.reader.readline():
                fields = line.decode("utf-8", "replace").rstrip("\n").split("\t")
                if fields[0] in ("OK", "FAIL", "CONT") and len(fields) > 1 and fields[1].isdigit():
                    waiting = connection.waiting.pop(int(fields[1]), None)
                    if waiting is not None and not waiting.done():
                        waiting.set_result([fields[0], *fields[2:]])
        except (OSError, ValueError):  # as good as closed
            pass

        finally:
            if self._connection is connection:
                self._connection = None
            connection.writer.close()
            for waiting in connection.waiting.values():
                if not waiting.done():
                    waiting.set_exception(_Stale("Connection lost to Dovecot auth service"))
            connection.waiting.clear()


class _DovecotExchange:
    """See Exchange."""

    def __init__(self, server: DovecotServer, mechanism: str, options: frozenset[str], client: ClientFacts) -> None:
        self._server = server
        self._mechanism = mechanism
        self._options = options
        self._client = client
        self._connection: _Connection | None = None
        self._number = 0

    async def begin(self, initial: bytes | None) -> Reply:
        try:
            return await self._begin(initial)
        except _Stale:
            pass  # the connection had been open for a while, and Dovecot was started anew
        try:
            return await self._begin(initial)
        except _Stale as error:
            raise SaslFailed(_LOST, str(error), temporary=True) from None

    async def _begin(self, initial: bytes | None) -> Reply:
        try:
            connection = await self._server.connection()
        except Unavailable as error:
            raise SaslFailed(_LOST, str(error), temporary=True) from None
        if not any(known.name == self._mechanism and known.fits(self._options) for known in connection.mechanisms):
            raise SaslFailed("Invalid authentication mechanism")
        self._connection = connection
        connection.last = self._number = connection.last % 0x7FFFFFFF + 1
        client = self._client
        words = ["AUTH", str(self._number), _value(self._mechanism), f"service={_value(self._server.names.service)}", "nologin"]
        words += [f"lip={client.server_address}", f"rip={client.address}"]
        words += [f"lport={client.server_port}", f"rport={client.port}"]
        if client.encrypted:
            words.append("secured")
        if initial is not None:
            words.append(f"resp={_checked(initial, 'initial')}")  # the last parameter, by the protocol
        return await self._ask(connection, "\t".join(words), first=True)

    async def step(self, response: bytes) -> Reply:
        connection = self._connection
        if connection is None:
            raise SaslFailed(_LOST, temporary=True)
        return await self._ask(connection, f"CONT\t{self._number}\t{_checked(response, 'continued')}")

    async def _ask(self, connection: _Connection, line: str, *, first: bool = False) -> Reply:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[list[str]] = loop.create_future()
        if connection.writer.is_closing():
            if first:
                raise _Stale("Connection lost to Dovecot auth service")
            raise SaslFailed(_LOST, temporary=True)
        connection.waiting[self._number] = waiting
        connection.writer.write(line.encode() + b"\n")
        limit = loop.call_later(_REPLY_S, _time_out, waiting)
        try:
            answer = await waiting
        except _Stale as error:
            if first:
                raise
            raise SaslFailed(_LOST, str(error), temporary=True) from None
        except Unavailable as error:
            raise SaslFailed(_LOST, str(error), temporary=True) from None
        finally:
            limit.cancel()
            connection.waiting.pop(self._number, None)
        return self._outcome(answer)

    def _outcome(self, answer: list[str]) -> Reply:
        if answer[0] == "CONT":
            return Reply(answer[1].encode() if len(answer) > 1 else b"")
        self._connection = None
        said = parameters(answer[1:])
        user = said.get("user", "")
        if answer[0] == "OK":
            if not user:
                raise SaslFailed(_LOST, "Dovecot auth service gave no user name", temporary=True)
            return Reply(None, user)
        temporary = "temp" in said
        raise SaslFailed(said.get("reason") or "(reason unavailable)", user=user, temporary=temporary)

    def abort(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.writer.is_closing():
            connection.writer.write(b"CANCEL\t%d\n" % self._number)


def _checked(text: bytes, what: str) -> str:
    """Base64 as it came: Dovecot looks closer, but it must be one word."""
    if not _BASE64.fullmatch(text):
        raise SaslFailed(f"Invalid base64 data in {what} response")
    return text.decode()


def _time_out(waiting: asyncio.Future[list[str]]) -> None:
    if not waiting.done():
        waiting.set_exception(Unavailable("Dovecot auth service does not answer"))

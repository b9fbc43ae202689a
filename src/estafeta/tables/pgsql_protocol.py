"""One connection to a PostgreSQL server: log in, ask with the simple query protocol, rows as the text that the server writes.

Source: the PostgreSQL manual, "Frontend/Backend Protocol", RFC 5802 and 7677 (SCRAM-SHA-256, without channel binding).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import ssl
import struct
from dataclasses import dataclass

from estafeta.tables.pool import Broken, Refused, logged_in
from estafeta.tables.servers import Server, Streams, connect

Rows = list[list[str | None]]

_PROTOCOL = 196608
_SSL_REQUEST = struct.pack(">II", 8, 80877103)
_MAX_MESSAGE = 64 << 20


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in where; ``tls`` None: not at all; ``tls_required``: a server without it is refused."""

    user: str
    password: str
    dbname: str
    encoding: str = "UTF8"
    tls: ssl.SSLContext | None = None
    tls_required: bool = False


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def md5_password(user: str, password: str, salt: bytes) -> str:
    """The answer of the md5 method."""
    inner = hashlib.md5(_raw(password) + _raw(user), usedforsecurity=False).hexdigest().encode()
    return "md5" + hashlib.md5(inner + salt, usedforsecurity=False).hexdigest()


class Scram:
    """The client's side of SCRAM-SHA-256."""

    def __init__(self, password: str, nonce: str | None = None) -> None:
        self._password = password
        self._nonce = nonce or base64.b64encode(os.urandom(18)).decode()
        self._server_signature = b""

    def first(self) -> bytes:
        """The first message."""
        return f"n,,n=,r={self._nonce}".encode()

    def second(self, challenge: bytes) -> bytes:
        """The answer to the server's challenge; raises Broken."""
        try:
            fields = dict(part.split("=", 1) for part in challenge.decode("ascii").split(","))
            nonce, salt, rounds = fields["r"], base64.b64decode(fields["s"]), int(fields["i"])
        except (ValueError, KeyError):
            raise Broken("a malformed SCRAM challenge from the server") from None
        if not nonce.startswith(self._nonce) or not 0 < rounds <= 1_000_000:
            raise Broken("a wrong SCRAM challenge from the server")
        salted = hashlib.pbkdf2_hmac("sha256", _raw(self._password), salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c=biws,r={nonce}"
        signed = f"n=,r={self._nonce},".encode() + challenge + b"," + without_proof.encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), signed, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def check(self, final: bytes) -> None:
        """Raises Broken unless the server has proved that it knows the password."""
        if not hmac.compare_digest(final, b"v=" + base64.b64encode(self._server_signature)):
            raise Broken("the server does not know the password (SCRAM)")


class PgsqlConnection:
    """See the module."""

    def __init__(self, streams: Streams) -> None:
        self._reader, self._writer = streams
        self._standard_strings = True

    async def _read(self) -> tuple[bytes, bytes]:
        head = await self._reader.readexactly(5)
        length = int.from_bytes(head[1:], "big") - 4
        if not 0 <= length <= _MAX_MESSAGE:
            raise Broken("a malformed message from the server")
        body = await self._reader.readexactly(length) if length else b""
        kind = head[:1]
        if kind == b"S":
            name, _, value = body.partition(b"\0")
            if name == b"standard_conforming_strings":
                self._standard_strings = value.rstrip(b"\0") == b"on"
        return kind, body

    def _send(self, kind: bytes, body: bytes) -> None:
        self._writer.write(kind + struct.pack(">I", len(body) + 4) + body)

    async def login(self, login: Login, host: str) -> None:
        """Raises Refused (with the server's words), Broken, OSError, EOFError."""
        if login.tls is not None and host:
            self._writer.write(_SSL_REQUEST)
            answer = await self._reader.readexactly(1)
            if answer == b"S":
                await self._writer.start_tls(login.tls, server_hostname=host)
            elif login.tls_required:
                raise Refused("the server offers no TLS")
        settings = {"user": login.user, "database": login.dbname, "client_encoding": login.encoding, "application_name": "estafeta"}
        body = b"".join(_raw(name) + b"\0" + _raw(value) + b"\0" for name, value in settings.items()) + b"\0"
        self._writer.write(struct.pack(">II", len(body) + 8, _PROTOCOL) + body)
        scram = Scram(login.password)
        while True:
            kind, body = await self._read()
            if kind == b"Z":
                return
            if kind == b"E":
                raise Refused(_error(body))
            if kind == b"R":
                self._authenticate(login, scram, int.from_bytes(body[:4], "big"), body[4:])

    def _authenticate(self, login: Login, scram: Scram, method: int, data: bytes) -> None:
        if method == 0:
            return
        if method == 3:
            self._send(b"p", _raw(login.password) + b"\0")
        elif method == 5:
            self._send(b"p", md5_password(login.user, login.password, data[:4]).encode() + b"\0")
        elif method == 10:
            if b"SCRAM-SHA-256" not in data.split(b"\0"):
                raise Refused("the server offers no SCRAM-SHA-256")
            first = scram.first()
            self._send(b"p", b"SCRAM-SHA-256\0" + struct.pack(">I", len(first)) + first)
        elif method == 11:
            self._send(b"p", scram.second(data))
        elif method == 12:
            scram.check(data)
        else:
            raise Refused(f"authentication method {method} of the server is not supported")

    def quote(self, text: str) -> str:
        """``text`` for the inside of a quoted string, as the server reads it."""
        text = text.replace("'", "''")
        return text if self._standard_strings else text.replace("\\", "\\\\")

    async def query(self, text: str) -> Rows | None:
        """The rows of the last statement; None: no result set. Raises Refused, Broken, OSError, EOFError."""
        self._send(b"Q", _raw(text) + b"\0")
        rows: Rows | None = None
        error = ""
        while True:
            kind, body = await self._read()
            if kind == b"D" and rows is not None:
                rows.append(_row(body))
            elif kind == b"T":
                rows = []
            elif kind == b"E":
                error = _error(body)
            elif kind == b"G":
                raise Broken("the query asks for data of the client")
            elif kind == b"Z":
                if error:
                    raise Refused(error)
                return rows

    def close(self) -> None:
        """Close at once."""
        self._writer.close()


def _error(body: bytes) -> str:
    for field in body.split(b"\0"):
        if field[:1] == b"M":
            return field[1:].decode("utf-8", "replace")
    return "an error without a text"


def _row(body: bytes) -> list[str | None]:
    row: list[str | None] = []
    at = 2
    try:
        for _ in range(int.from_bytes(body[:2], "big")):
            (length,) = struct.unpack_from(">i", body, at)
            at += 4
            if length < 0:
                row.append("")  # libpq shows NULL so
                continue
            row.append(body[at : at + length].decode("utf-8", "surrogateescape"))
            at += length
    except struct.error:
        raise Broken("a malformed row from the server") from None
    return row


async def log_in(server: Server, login: Login) -> PgsqlConnection:
    """A connection that is ready for queries; raises Refused, Broken, OSError, EOFError."""
    connection = PgsqlConnection(await connect(server))
    await logged_in(connection, connection.login(login, server.host))
    return connection

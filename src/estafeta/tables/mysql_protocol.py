"""One connection to a MySQL or MariaDB server: log in, ask one query at a time, rows as text.

Source: the MariaDB knowledge base "Client/Server Protocol", MySQL's "Protocol::HandshakeV10". Authentication:
mysql_native_password, caching_sha2_password, mysql_clear_password (inside TLS or a UNIX-domain socket only), and what the
server decides by the socket's user. Old password hashes, LOCAL INFILE and the ed25519 plugin are refused.
"""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import struct
from dataclasses import dataclass

from estafeta.tables.pool import Broken, Refused, logged_in
from estafeta.tables.servers import Server, Streams, connect

Rows = list[list[str | None]]

_LONG_PASSWORD, _LONG_FLAG, _WITH_DB, _PROTOCOL_41, _SSL = 1, 4, 8, 0x200, 0x800
_TRANSACTIONS, _SECURE, _MULTI_RESULTS, _PLUGIN = 0x2000, 0x8000, 0x20000, 0x80000
_MORE_RESULTS, _NO_BACKSLASH_ESCAPES = 0x8, 0x200
_UTF8MB4, _LATIN1 = 45, 8
_MAX_PACKET = (1 << 24) - 1
_MAX_RESULT = 64 << 20  # bytes of one answer


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in, and how."""

    user: str
    password: str
    dbname: str
    charset: str = "utf8mb4"
    tls: ssl.SSLContext | None = None


def native_password(password: bytes, salt: bytes) -> bytes:
    """The answer of mysql_native_password."""
    if not password:
        return b""
    first = hashlib.sha1(password).digest()
    mask = hashlib.sha1(salt + hashlib.sha1(first).digest()).digest()
    return bytes(a ^ b for a, b in zip(first, mask, strict=True))


def sha2_password(password: bytes, salt: bytes) -> bytes:
    """The first answer of caching_sha2_password."""
    if not password:
        return b""
    first = hashlib.sha256(password).digest()
    mask = hashlib.sha256(hashlib.sha256(first).digest() + salt).digest()
    return bytes(a ^ b for a, b in zip(first, mask, strict=True))


def rsa_oaep(pem: bytes, data: bytes) -> bytes:
    """``data`` encrypted with the public key in ``pem`` (SubjectPublicKeyInfo), OAEP with SHA-1. Raises Broken."""
    try:
        body = b"".join(line for line in pem.split(b"\n") if line and not line.startswith(b"-"))
        modulus, rest = _der(_key_bits(_der(base64.b64decode(body))[0]))
        exponent, _ = _der(rest)
    except (ValueError, IndexError) as error:
        raise Broken(f"the server's public key cannot be read: {error}") from None
    n, e = int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")
    size = (n.bit_length() + 7) // 8
    empty = hashlib.sha1(b"").digest()
    if len(data) > size - 42:
        raise Broken("the password is too long for the server's key")
    block = empty + bytes(size - len(data) - 42) + b"\1" + data
    seed = os.urandom(20)
    masked = bytes(a ^ b for a, b in zip(block, _mask(seed, len(block)), strict=True))
    masked_seed = bytes(a ^ b for a, b in zip(seed, _mask(masked, 20), strict=True))
    return pow(int.from_bytes(b"\0" + masked_seed + masked, "big"), e, n).to_bytes(size, "big")


def _mask(seed: bytes, length: int) -> bytes:
    blocks = (hashlib.sha1(seed + struct.pack(">I", count)).digest() for count in range((length + 19) // 20))
    return b"".join(blocks)[:length]


def _der(data: bytes) -> tuple[bytes, bytes]:
    """The contents of the first element, and what follows it."""
    length = data[1]
    at = 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[2 : 2 + count], "big")
        at += count
    return data[at : at + length], data[at + length :]


def _key_bits(info: bytes) -> bytes:
    _, rest = _der(info)  # the algorithm
    bits, _ = _der(rest)
    return _der(bits[1:])[0]


class MysqlConnection:
    """See the module."""

    def __init__(self, streams: Streams, local: bool) -> None:
        self._reader, self._writer = streams
        self._sequence = 0
        self._secure = local
        self._status = 0

    # Packets.

    async def _read(self) -> bytes:
        whole = b""
        while True:
            head = await self._reader.readexactly(4)
            length = int.from_bytes(head[:3], "little")
            self._sequence = (head[3] + 1) & 0xFF
            whole += await self._reader.readexactly(length)
            if length < _MAX_PACKET:
                break
            if len(whole) > _MAX_RESULT:
                raise Broken("the server's answer is too large")
        if not whole:
            raise Broken("an empty packet from the server")
        return whole

    def _send(self, payload: bytes) -> None:
        if len(payload) >= _MAX_PACKET:
            raise Refused("the query is too long")
        self._writer.write(len(payload).to_bytes(3, "little") + bytes((self._sequence,)) + payload)
        self._sequence = (self._sequence + 1) & 0xFF

    # Logging in.

    async def login(self, login: Login, host: str) -> None:
        """Raises Refused (with the server's words), Broken, OSError, EOFError."""
        greeting = await self._read()
        if greeting[0] == 0xFF:
            raise Refused(_error(greeting))
        if greeting[0] != 10:
            raise Broken(f"protocol version {greeting[0]} of the server is not supported")
        try:
            salt, plugin, offered = _greeting(greeting)
        except (ValueError, IndexError, struct.error):
            raise Broken("the server's greeting cannot be read") from None
        flags = _LONG_PASSWORD | _LONG_FLAG | _PROTOCOL_41 | _TRANSACTIONS | _SECURE | _MULTI_RESULTS | _PLUGIN
        if login.dbname:
            flags |= _WITH_DB
        charset = _LATIN1 if login.charset == "latin1" else _UTF8MB4
        if login.tls is not None:
            if not offered & _SSL:
                raise Refused("the server offers no TLS")
            flags |= _SSL
            self._send(struct.pack("<IIB23x", flags, _MAX_PACKET, charset))
            await self._writer.start_tls(login.tls, server_hostname=host or None)
            self._secure = True
        password = _raw(login.password)
        answer = _answer(plugin, password, salt)
        if answer is None:
            plugin, answer = "mysql_native_password", native_password(password, salt)
        self._send(
            struct.pack("<IIB23x", flags, _MAX_PACKET, charset)
            + _raw(login.user) + b"\0" + bytes((len(answer),)) + answer
            + (_raw(login.dbname) + b"\0" if login.dbname else b"")
            + plugin.encode() + b"\0"
        )  # fmt: skip
        await self._authenticate(plugin, password, salt)

    async def _authenticate(self, plugin: str, password: bytes, salt: bytes) -> None:
        for _ in range(8):
            packet = await self._read()
            kind = packet[0]
            if kind == 0:
                self._take_ok(packet)
                return
            if kind == 0xFF:
                raise Refused(_error(packet))
            if kind == 0xFE:
                name, _, data = packet[1:].partition(b"\0")
                plugin, salt = name.decode("latin-1"), data.rstrip(b"\0")
                if plugin == "mysql_clear_password":
                    if not self._secure:
                        raise Refused("the server asks for a clear-text password without TLS")
                    self._send(password + b"\0")
                    continue
                answer = _answer(plugin, password, salt)
                if answer is None:
                    raise Refused(f"authentication plugin {plugin} is not supported")
                self._send(answer)
            elif kind == 1 and plugin == "caching_sha2_password":
                if packet[1:2] == b"\3":
                    continue
                if packet[1:2] != b"\4":
                    raise Broken("unexpected authentication data from the server")
                if self._secure:
                    self._send(password + b"\0")
                    continue
                self._send(b"\2")
                key = await self._read()
                padded = password + b"\0"
                secret = bytes(c ^ salt[at % len(salt)] for at, c in enumerate(padded))
                self._send(rsa_oaep(key[1:], secret))
            else:
                raise Broken("unexpected authentication packet from the server")
        raise Broken("endless authentication")

    def _take_ok(self, packet: bytes) -> None:
        _, at = _number(packet, 1)
        _, at = _number(packet, at)
        self._status = int.from_bytes(packet[at : at + 2], "little")

    # Queries.

    def quote(self, text: str) -> str:
        """``text`` for the inside of a quoted string, as the server's SQL mode reads it."""
        if self._status & _NO_BACKSLASH_ESCAPES:
            return text.replace("'", "''")
        return text.translate(_ESCAPES)

    async def query(self, text: str) -> Rows | None:
        """The rows; None: no result set. Raises Refused, Broken, OSError, EOFError."""
        self._sequence = 0
        self._send(b"\3" + _raw(text))
        rows: Rows | None = None
        sets = 0
        while True:
            found = await self._result()
            if found is not None:
                rows = found
                sets += 1
            if not self._status & _MORE_RESULTS:
                break
        if sets > 1:
            raise Refused("the query returned more than one result set")
        return rows

    async def _result(self) -> Rows | None:
        head = await self._read()
        kind = head[0]
        if kind == 0xFF:
            self._status &= ~_MORE_RESULTS
            raise Refused(_error(head))
        if kind == 0:
            self._take_ok(head)
            return None
        if kind == 0xFB:
            raise Broken("the server asks for a local file")
        columns, _ = _number(head, 0)
        for _ in range(columns):
            await self._read()
        await self._read()  # the end of the column definitions
        rows: Rows = []
        size = 0
        while True:
            packet = await self._read()
            if packet[0] == 0xFE and len(packet) < 9:
                self._status = int.from_bytes(packet[3:5], "little")
                return rows
            if packet[0] == 0xFF:
                raise Refused(_error(packet))
            size += len(packet)
            if size > _MAX_RESULT:
                raise Broken("the server's answer is too large")
            rows.append(_row(packet, columns))

    def close(self) -> None:
        """Close at once."""
        self._writer.close()


_ESCAPES = str.maketrans(
    {"\0": "\\0", "\n": "\\n", "\r": "\\r", "\\": "\\\\", "'": "\\'", '"': '\\"', "\x1a": "\\Z"}
)


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _answer(plugin: str, password: bytes, salt: bytes) -> bytes | None:
    if plugin == "mysql_native_password":
        return native_password(password, salt)
    if plugin == "caching_sha2_password":
        return sha2_password(password, salt)
    if plugin in ("auth_socket", "unix_socket"):
        return b""
    return None


def _greeting(packet: bytes) -> tuple[bytes, str, int]:
    at = packet.index(b"\0", 1) + 1 + 4
    salt = packet[at : at + 8]
    at += 9
    low, _, _, high, length = struct.unpack_from("<HBHHB", packet, at)
    at += 8 + 10
    more = max(13, length - 8)
    salt += packet[at : at + more].rstrip(b"\0")
    plugin = packet[at + more :].partition(b"\0")[0].decode("latin-1")
    return salt, plugin or "mysql_native_password", low | high << 16


def _error(packet: bytes) -> str:
    text = packet[3:]
    if text[:1] == b"#":
        text = text[6:]
    return text.decode("utf-8", "replace")


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A length-encoded number and the place behind it."""
    first = data[at]
    if first < 0xFB:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
    if size is None:
        raise Broken("a malformed packet from the server")
    return int.from_bytes(data[at + 1 : at + 1 + size], "little"), at + 1 + size


def _row(packet: bytes, columns: int) -> list[str | None]:
    at = 0
    row: list[str | None] = []
    try:
        for _ in range(columns):
            if packet[at] == 0xFB:
                row.append(None)
                at += 1
                continue
            length, at = _number(packet, at)
            row.append(packet[at : at + length].decode("utf-8", "surrogateescape"))
            at += length
    except IndexError:
        raise Broken("a malformed row from the server") from None
    return row


async def log_in(server: Server, login: Login) -> MysqlConnection:
    """A connection that is ready for queries; raises Refused, Broken, OSError, EOFError."""
    connection = MysqlConnection(await connect(server), bool(server.path))
    await logged_in(connection, connection.login(login, server.host))
    return connection

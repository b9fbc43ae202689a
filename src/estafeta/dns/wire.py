"""The DNS wire format: encode one question, decode one response.

Source: RFC 1035 (messages, names, compression), 3596 (AAAA), 2782 (SRV), 6698 (TLSA), 6891 (EDNS0), 4035 (AD,
DO). Invariants: pure, no I/O. ``parse_response`` returns a Response or raises WireError, nothing else. A name
is text without the final dot ("" is the root), dots and odd bytes inside a label are written as ``\\.`` and
``\\DDD``. A compression pointer must point before the place where the name started, so a name always ends.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address


class WireError(ValueError):
    """The bytes are not a well-formed DNS message, or a name cannot be written as one."""


class RRType(IntEnum):
    """Record types that the mail system asks for or meets."""

    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    MX = 15
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    TLSA = 52


class Rcode(IntEnum):
    """Response codes with a meaning of their own here; others are kept as numbers."""

    NOERROR = 0
    FORMERR = 1
    SERVFAIL = 2
    NXDOMAIN = 3
    NOTIMP = 4
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record of class IN.

    ``value`` is the address (A, AAAA), the host or domain (MX, PTR, CNAME, NS, SRV, SOA's primary) or the
    joined text (TXT, latin-1). ``data`` is the raw record data. ``preference`` is MX preference or SRV
    priority.
    """

    name: str
    rtype: int
    ttl_s: int
    value: str
    preference: int = 0
    data: bytes = b""
    weight: int = 0
    port: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """One decoded response. ``negative_ttl_s`` comes from the SOA of the authority section, None without one."""

    query_id: int
    rcode: int
    truncated: bool
    authentic: bool
    question_name: str
    question_type: int
    answers: tuple[Record, ...]
    negative_ttl_s: int | None


_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!HH")
_RR = struct.Struct("!HHIH")
_MAX_NAME = 255
_MAX_TTL = 0x7FFFFFFF
_CLASS_IN = 1


def encode_name(name: str) -> bytes:
    """Return the wire form of an ASCII ``name`` (final dot optional); WireError if it is no legal name."""
    if name.endswith(".") and not name.endswith("\\."):
        name = name[:-1]
    if not name:
        return b"\0"
    try:
        raw = name.encode("ascii")
    except UnicodeEncodeError:
        raise WireError("name is not ASCII") from None
    out = bytearray()
    for label in _split_labels(raw):
        if not label or len(label) > 63:
            raise WireError("empty or too long label")
        out.append(len(label))
        out += label
    out.append(0)
    if len(out) > _MAX_NAME:
        raise WireError("name too long")
    return bytes(out)


def _split_labels(raw: bytes) -> list[bytes]:
    if b"\\" not in raw:
        return raw.split(b".")
    labels = [bytearray()]
    position = 0
    while position < len(raw):
        char = raw[position]
        if char == 0x2E:
            labels.append(bytearray())
        elif char == 0x5C:
            digits = raw[position + 1 : position + 4]
            if len(digits) == 3 and digits.isdigit() and int(digits) < 256:
                labels[-1].append(int(digits))
                position += 3
            elif position + 1 < len(raw) and not digits[:1].isdigit():
                labels[-1].append(raw[position + 1])
                position += 1
            else:
                raise WireError("bad escape in name")
        else:
            labels[-1].append(char)
        position += 1
    return [bytes(label) for label in labels]


def encode_query(query_id: int, name: str, rtype: int, *, edns: bool = False, dnssec: bool = False) -> bytes:
    """Return a recursive query for ``name``; ``dnssec`` sets AD and, in the EDNS record that it implies, DO."""
    edns = edns or dnssec
    flags = 0x0120 if dnssec else 0x0100
    message = (
        _HEADER.pack(query_id, flags, 1, 0, 0, 1 if edns else 0) + encode_name(name) + _QUESTION.pack(rtype, _CLASS_IN)
    )
    if edns:
        message += b"\0" + _RR.pack(RRType.OPT, 1232, 0x8000 if dnssec else 0, 0)
    return message


def _label_text(label: bytes) -> str:
    text = label.decode("latin-1")
    if text.isascii() and text.isprintable() and "." not in text and "\\" not in text:
        return text
    return "".join(
        f"\\{char}" if char in ".\\" else char if "!" <= char <= "~" else f"\\{ord(char):03d}" for char in text
    )


def decode_name(message: bytes, offset: int) -> tuple[str, int]:
    """Return the name at ``offset`` and the offset behind it; WireError on loops and torn names."""
    labels: list[str] = []
    end = -1
    limit = offset
    size = 0
    try:
        while True:
            length = message[offset]
            if length == 0:
                offset += 1
                break
            if length < 0x40:
                label = message[offset + 1 : offset + 1 + length]
                if len(label) < length:
                    raise WireError("torn name")
                size += length + 1
                if size > _MAX_NAME - 1:
                    raise WireError("name too long")
                labels.append(_label_text(label))
                offset += length + 1
            elif length >= 0xC0:
                target = (length & 0x3F) << 8 | message[offset + 1]
                if end < 0:
                    end = offset + 2
                if target >= limit:
                    raise WireError("compression pointer does not point back")
                limit = offset = target
            else:
                raise WireError("unknown label type")
    except IndexError:
        raise WireError("torn name") from None
    return ".".join(labels), end if end >= 0 else offset


def parse_response(message: bytes) -> Response:
    """Decode a response; WireError when it is malformed. A truncated one is read without its records."""
    if len(message) < 12:
        raise WireError("message shorter than its header")
    query_id, flags, questions, answers, authorities, _ = _HEADER.unpack_from(message)
    if not flags & 0x8000:
        raise WireError("not a response")
    if questions != 1:
        # A server that refuses the format may send the bare header back.
        if questions == 0 and flags & 15 in (Rcode.FORMERR, Rcode.NOTIMP, Rcode.SERVFAIL, Rcode.REFUSED):
            return Response(query_id, flags & 15, False, False, "", 0, (), None)
        raise WireError("not exactly one question")
    name, offset = decode_name(message, 12)
    try:
        rtype, rclass = _QUESTION.unpack_from(message, offset)
        if rclass != _CLASS_IN:
            raise WireError("question of another class")
        offset += 4
        truncated = bool(flags & 0x0200)
        records: list[Record] = []
        negative_ttl: int | None = None
        if not truncated:
            for _ in range(answers):
                record, offset = _decode_record(message, offset)
                if record is not None:
                    records.append(record)
            for _ in range(authorities):
                record, offset = _decode_record(message, offset)
                if record is not None and record.rtype == RRType.SOA:
                    negative_ttl = min(record.ttl_s, record.weight)
    except struct.error:
        raise WireError("torn message") from None
    return Response(query_id, flags & 15, truncated, bool(flags & 0x0020), name, rtype, tuple(records), negative_ttl)


def _decode_record(message: bytes, offset: int) -> tuple[Record | None, int]:
    """Return the record at ``offset`` (None when it is of another class or a type without use here) and the
    next offset.
    """
    name, offset = decode_name(message, offset)
    rtype, rclass, ttl, length = _RR.unpack_from(message, offset)
    start = offset + _RR.size
    end = start + length
    data = message[start:end]
    if len(data) < length:
        raise WireError("torn record")
    if rclass != _CLASS_IN:
        return None, end
    if ttl > _MAX_TTL:
        ttl = 0
    if rtype == RRType.A:
        if length != 4:
            raise WireError("bad A record")
        return Record(name, rtype, ttl, ".".join(map(str, data)), data=data), end
    if rtype == RRType.AAAA:
        if length != 16:
            raise WireError("bad AAAA record")
        return Record(name, rtype, ttl, str(IPv6Address(data)), data=data), end
    if rtype in (RRType.CNAME, RRType.PTR, RRType.NS):
        return Record(name, rtype, ttl, _name_in(message, start, end), data=data), end
    if rtype == RRType.MX:
        if length < 3:
            raise WireError("bad MX record")
        return Record(name, rtype, ttl, _name_in(message, start + 2, end), data[0] << 8 | data[1], data), end
    if rtype == RRType.TXT:
        return Record(name, rtype, ttl, _text(data), data=data), end
    if rtype == RRType.SRV:
        if length < 7:
            raise WireError("bad SRV record")
        priority, weight, port = struct.unpack_from("!3H", data)
        return Record(name, rtype, ttl, _name_in(message, start + 6, end), priority, data, weight, port), end
    if rtype == RRType.SOA:
        primary, after = decode_name(message, start)
        _, after = decode_name(message, after)
        if after + 20 != end:
            raise WireError("bad SOA record")
        # The field for weight carries the SOA's minimum, the ceiling of the negative time to live (RFC 2308).
        minimum: int = struct.unpack_from("!I", message, after + 16)[0]
        return Record(name, rtype, ttl, primary, data=data, weight=min(minimum, _MAX_TTL)), end
    if rtype == RRType.TLSA:
        if length < 4:
            raise WireError("bad TLSA record")
        return Record(name, rtype, ttl, f"{data[0]} {data[1]} {data[2]} {data[3:].hex()}", data=data), end
    return Record(name, rtype, ttl, "", data=data), end


def _name_in(message: bytes, start: int, end: int) -> str:
    name, after = decode_name(message, start)
    if after != end:
        raise WireError("record data does not end with its name")
    return name


def _text(data: bytes) -> str:
    parts: list[bytes] = []
    position = 0
    while position < len(data):
        length = data[position]
        part = data[position + 1 : position + 1 + length]
        if len(part) < length:
            raise WireError("torn character-string")
        parts.append(part)
        position += length + 1
    return b"".join(parts).decode("latin-1")

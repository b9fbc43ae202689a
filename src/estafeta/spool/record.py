"""The codec of the queue: message and state records, and the entries of a segment's done log.

A queue file is a segment with one message record. A record is a fixed head, the envelope (MessagePack) and the content in
wire form (CRLF line ends, not dot-stuffed)::

    magic "\\xe5TF1" | kind u8 | padding u24 | envelope length u32 | content length u64 | head+envelope crc32 | content crc32

then the envelope, the padding (a large message reserves room before its envelope is final) and the content.

State records follow the message record of a queue file of its own and say what became of its recipients since. The done
log of a segment has fixed-size entries: magic, offset of the message record, recipient number, crc32.

Invariants: a record is whole if both checksums hold; whatever is not whole is never taken for a message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

import msgspec

from estafeta.ipc.messages import Envelope, Place

MAGIC = b"\xe5TF1"
_PREFIX = struct.Struct(">4sB3sIQ")
_NO_PADDING = b"\0\0\0"
MAX_PADDING = 0xFFFFFF
_SUMS = struct.Struct(">II")
HEAD_SIZE = _PREFIX.size + _SUMS.size
_DONE = struct.Struct(">2sQI")
_DONE_MAGIC = b"\xe5D"
DONE_SIZE = _DONE.size + 4
ALL_RECIPIENTS = 0xFFFFFFFF
MAX_ENVELOPE = 256 * 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode
_decode_envelope = msgspec.msgpack.Decoder(Envelope).decode


class Kind(IntEnum):
    MESSAGE = 1
    STATE = 2


class RecipientState(msgspec.Struct, array_like=True):
    """What happened to recipient ``index``: done, or failed for now with a reason."""

    index: int
    done: bool
    status: str = ""
    reason: str = ""


class State(msgspec.Struct, array_like=True):
    """A change to a message in a file of its own; later records win."""

    attempts: int
    next_try_at: float
    warned: bool = False
    recipients: list[RecipientState] = []


_decode_state = msgspec.msgpack.Decoder(State).decode


class DamagedRecord(Exception):
    """The bytes at this place are no whole record."""


def message_head(envelope: Envelope, content_length: int, content_crc: int, *, room: int = 0) -> bytes:
    """Everything of a message record before its content; padded to ``room`` bytes if it is shorter and fits."""
    body = _encode(envelope)
    padding = min(max(0, room - HEAD_SIZE - len(body)), MAX_PADDING)
    pad_field = padding.to_bytes(3, "big") if padding else _NO_PADDING
    prefix = _PREFIX.pack(MAGIC, Kind.MESSAGE, pad_field, len(body), content_length)
    return prefix + _SUMS.pack(crc32(body, crc32(prefix)), content_crc) + body + bytes(padding)


def state_record(state: State) -> bytes:
    """A whole state record."""
    body = _encode(state)
    prefix = _PREFIX.pack(MAGIC, Kind.STATE, _NO_PADDING, len(body), 0)
    return prefix + _SUMS.pack(crc32(body, crc32(prefix)), 0) + body


def done_entry(offset: int, recipient: int) -> bytes:
    """One entry of a done log."""
    entry = _DONE.pack(_DONE_MAGIC, offset, recipient)
    return entry + crc32(entry).to_bytes(4, "big")


def read_done_log(data: bytes) -> dict[int, set[int]]:
    """Finished recipients by record offset; damaged entries are skipped (their recipients are tried again)."""
    done: dict[int, set[int]] = {}
    for start in range(0, len(data) - DONE_SIZE + 1, DONE_SIZE):
        entry = data[start : start + _DONE.size]
        magic, offset, recipient = _DONE.unpack(entry)
        if magic == _DONE_MAGIC and data[start + _DONE.size : start + DONE_SIZE] == crc32(entry).to_bytes(4, "big"):
            done.setdefault(offset, set()).add(recipient)
    return done


@dataclass(slots=True)
class Found:
    """A whole record found in a file."""

    kind: Kind
    offset: int
    length: int
    content_offset: int
    content_length: int
    envelope: Envelope | None = None
    state: State | None = None

    def place(self, segment: str) -> Place:
        return Place(segment, self.offset, self.length, self.content_offset, self.content_length)


@dataclass(slots=True)
class Damage:
    """Bytes that are no record: skipped."""

    offset: int
    length: int


def parse_record(data: bytes | memoryview, offset: int, *, check_content: bool = True) -> Found:
    """The record at ``offset``; raises DamagedRecord."""
    view = memoryview(data)
    if len(view) - offset < HEAD_SIZE:
        raise DamagedRecord("short head")
    magic, kind, padding, envelope_length, content_length = _PREFIX.unpack_from(view, offset)
    if magic != MAGIC or kind not in (Kind.MESSAGE, Kind.STATE) or envelope_length > MAX_ENVELOPE:
        raise DamagedRecord("bad head")
    head_crc, content_crc = _SUMS.unpack_from(view, offset + _PREFIX.size)
    body_at = offset + HEAD_SIZE
    body_end = body_at + envelope_length
    content_at = body_end + int.from_bytes(padding, "big")
    end = content_at + content_length
    if content_at > len(view) or (check_content and end > len(view)):
        raise DamagedRecord("torn record")
    body = view[body_at:body_end]
    if crc32(body, crc32(view[offset : offset + _PREFIX.size])) != head_crc:
        raise DamagedRecord("envelope checksum")
    if check_content and crc32(view[content_at:end]) != content_crc:
        raise DamagedRecord("content checksum")
    found = Found(Kind(kind), offset, end - offset, content_at, content_length)
    try:
        if kind == Kind.MESSAGE:
            found.envelope = _decode_envelope(body)
        else:
            found.state = _decode_state(body)
    except msgspec.MsgspecError as error:
        raise DamagedRecord(f"envelope: {error}") from None
    return found


def iter_records(data: bytes | memoryview) -> Iterator[Found | Damage]:
    """Every whole record, and the stretches between them that are none."""
    view = memoryview(data)
    offset = 0
    size = len(view)
    raw = bytes(view) if size else b""
    while offset < size:
        try:
            found = parse_record(view, offset)
        except DamagedRecord:
            following = raw.find(MAGIC, offset + 1)
            while following != -1:
                try:
                    parse_record(view, following)
                    break
                except DamagedRecord:
                    following = raw.find(MAGIC, following + 1)
            end = size if following == -1 else following
            yield Damage(offset, end - offset)
            offset = end
            continue
        yield found
        offset += found.length


def apply_state(envelope: Envelope, state: State, done: set[int]) -> None:
    """Bring ``envelope`` and the set of finished recipient numbers up to date with a state record."""
    envelope.attempts = state.attempts
    envelope.next_try_at = state.next_try_at
    envelope.warned = state.warned
    for change in state.recipients:
        if change.done:
            done.add(change.index)
        elif change.index < len(envelope.recipients):
            recipient = envelope.recipients[change.index]
            recipient.status, recipient.reason = change.status, change.reason

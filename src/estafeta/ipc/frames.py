"""Frames on the sockets between Estafeta's processes: length, request number, MessagePack.

A frame is ``length`` (4 bytes, big-endian, of what follows), ``number`` (4 bytes; a reply carries its request's), and one
tagged structure of ``ipc.messages``. Anything else raises FrameError: the connection ends and the peer is logged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from estafeta.ipc.messages import Message

MAX_FRAME = 64 * 1024 * 1024
_HEAD = struct.Struct(">II")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


class FrameError(Exception):
    """The peer sent what is no frame of ours."""


def encode_frame(number: int, message: Message) -> bytes:
    """The bytes of one frame."""
    body = _encode(message)
    return _HEAD.pack(len(body) + 4, number) + body


class FrameReader:
    """Cuts a byte stream into frames."""

    __slots__ = ("_buffer", "_need")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, Message]]:
        """Yield the frames that are complete now; raises FrameError."""
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._need:
                return
            data = bytes(buffer)
            buffer.clear()
        view = memoryview(data)
        position = 0
        size = len(data)
        while size - position >= 8:
            length, number = _HEAD.unpack_from(data, position)
            if not 4 < length <= MAX_FRAME:
                raise FrameError(f"bad frame length {length}")
            end = position + 4 + length
            if end > size:
                self._need = end - position
                buffer += view[position:]
                return
            try:
                message = _decode(view[position + 8 : end])
            except msgspec.MsgspecError as error:
                raise FrameError(f"malformed frame: {error}") from None
            position = end
            yield number, message
        if position < size:
            self._need = 8
            buffer += view[position:]

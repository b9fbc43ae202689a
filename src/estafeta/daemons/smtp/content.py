"""Content on its way out: lines broken, dots doubled, whole when small and in pieces when large.

Source: RFC 5321 section 4.5.2 (transparency); man 5 postconf smtp_line_length_limit. Invariant: the pieces of a large
message joined are what a small one would be: they are cut between lines where there are any.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Protocol

from estafeta.ipc.messages import Place
from estafeta.mail.mime import MimeProblem
from estafeta.mail.seven_bit import SevenBit
from estafeta.protocol.smtp_client_commands import break_long_lines, dot_stuff

WHOLE_BYTES = 512 * 1024
PIECE_BYTES = 256 * 1024


class Readable(Protocol):
    """What content is read from: the queue's ContentReader, or a changed message."""

    def read(self, place: Place, start: int = 0, length: int | None = None) -> bytes:
        """As ContentReader.read."""
        ...


def whole_content(
    reader: Readable, place: Place, *, dot_free: bool, line_limit: int, converter: SevenBit | None = None
) -> bytes:
    """A small message, ready for the wire but for the final dot. Raises OSError."""
    content = reader.read(place)
    if converter is not None:
        try:
            content, dot_free = converter.feed(content, last=True), False
        except MimeProblem:
            pass  # a strange message goes as it is
    broken = break_long_lines(content, line_limit)
    # Breaking puts a space first, never a dot, so the promise holds.
    return dot_stuff(broken, dot_free=dot_free)


def content_pieces(
    reader: Readable, place: Place, *, dot_free: bool, line_limit: int, piece_bytes: int = PIECE_BYTES,
    converter: SevenBit | None = None,
) -> Iterator[bytes]:  # fmt: skip
    """The same for a large message, piece by piece. Raises OSError while it is read."""
    position = 0
    rest = b""
    size = place.content_length
    while position < size:
        data = reader.read(place, position, piece_bytes)
        position += len(data)
        data = rest + data
        if position < size:
            end = data.rfind(b"\r\n") + 2
            if end < 2:
                # A line longer than a piece: wait for its end.
                rest = data
                continue
            rest = data[end:]
            data = data[:end]
        if converter is not None:
            try:
                data, dot_free = converter.feed(data, last=position >= size), False
            except MimeProblem as error:
                raise OSError(errno.EINVAL, error.problem) from None
        yield dot_stuff(break_long_lines(data, line_limit), dot_free=dot_free)

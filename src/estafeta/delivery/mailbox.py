"""What a message looks like in a mailbox: headers on top, Unix line ends, and the loop check by Delivered-To.

Source: local(8), virtual(8), pipe(8); postconf(5) enable_original_recipient, prepend_delivered_header. Content lies in the
spool in wire form (CRLF); files and commands get LF.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from estafeta.ipc.messages import Envelope, Place, Recipient
from estafeta.mail.address import quote_address
from estafeta.spool.content import ContentReader

_CHUNK = 1 << 20
_HEADERS_MOST = 1 << 18
_DELIVERED_TO = re.compile(rb"^delivered-to:((?:[^\n]|\n[ \t])*)\n", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Source:
    """A message in the spool, to be copied as often as needed."""

    reader: ContentReader
    place: Place

    def chunks(self) -> Iterator[bytes]:
        """The content with LF line ends, the last line ended; iterating raises OSError.

        The queue file is opened now: the copy is made as the recipient, who cannot open it.
        """
        try:
            if self.place.content_length <= _CHUNK:
                return unix_lines(iter((self.reader.read(self.place),)))
            pieces = self._pieces(os.dup(self.reader.descriptor(self.place)))
        except OSError as error:
            return _failing(error)
        next(pieces)  # from here on dropping the iterator closes the descriptor
        return unix_lines(pieces)

    def _pieces(self, fd: int) -> Iterator[bytes]:
        try:
            yield b""
            at = self.place.content_offset
            end = at + self.place.content_length
            while at < end:
                data = os.pread(fd, min(_CHUNK, end - at), at)
                if not data:
                    raise OSError(f"queue file {self.place.segment} is shorter than its record")
                at += len(data)
                yield data
        finally:
            os.close(fd)

    def header_block(self) -> bytes:
        """The message headers in wire form (of a monstrous block the beginning); raises OSError."""
        size = self.place.content_length
        for most in (4096, _HEADERS_MOST):
            data = self.reader.read(self.place, 0, most)
            end = data.find(b"\r\n\r\n")
            if end >= 0:
                return data[: end + 2]
            if len(data) >= size:
                break
        return data


def _failing(error: OSError) -> Iterator[bytes]:
    yield from _raised(error)


def _raised(error: OSError) -> Iterator[bytes]:
    raise error


def unix_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """CRLF becomes LF, also across the borders of pieces; a last line without an end gets one."""
    held = b""
    last = b"\n"
    for piece in pieces:
        data = held + piece if held else piece
        held = b""
        if data.endswith(b"\r"):
            held = b"\r"
            data = data[:-1]
        if data:
            data = data.replace(b"\r\n", b"\n")
            last = data[-1:]
            yield data
    if held:
        yield held
        last = held
    if last != b"\n":
        yield b"\n"


def delivered_to(header_block: bytes) -> frozenset[bytes]:
    """The addresses in Delivered-To headers, in lower case."""
    if b"elivered-" not in header_block and b"ELIVERED-" not in header_block.upper():
        return frozenset()
    return frozenset(found.strip().lower() for found in _DELIVERED_TO.findall(header_block))


def original_of(recipient: Recipient) -> bytes:
    """The recipient as it was given to Postfix."""
    return recipient.original or recipient.address


def trace_headers(envelope: Envelope, *, original: bytes, delivered: bytes, return_path: bool = True) -> bytes:
    """Return-Path, X-Original-To, Delivered-To, with LF; a header whose value is empty is left out."""
    out = []
    if return_path:
        out.append(b"Return-Path: <%s>\n" % quote_address(envelope.sender))
    if original:
        out.append(b"X-Original-To: %s\n" % original)
    if delivered:
        out.append(b"Delivered-To: %s\n" % delivered)
    return b"".join(out)

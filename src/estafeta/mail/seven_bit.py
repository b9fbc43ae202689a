"""A message with 8-bit parts made fit for a server that takes 7 bits: the parts that say 8bit or binary become quoted-printable.

Source: RFC 2045 section 6.7, RFC 6152; postconf(5) disable_mime_output_conversion. Parts without a label stay as they are: there is
no telling what they are. Invariants: lines come out whole (a piece ends where a line does); decoded, every part is what it was.
"""

from __future__ import annotations

import re

from estafeta.mail.header import HEADER, split_headers
from estafeta.mail.mime import BodyScanner, Kind, parse_encoding

_UNSAFE = re.compile(rb"[^\t !-<>-~]")
_WIDTH = 76
_EIGHT_BIT = frozenset((b"8bit", b"binary"))
_CODES = [b"=%02X" % number for number in range(256)]


def quoted_printable(line: bytes) -> bytes:
    """One line without its end, broken into as many as it takes."""
    text = _UNSAFE.sub(lambda match: _CODES[match[0][0]], line)
    if text.endswith((b" ", b"\t")):
        text = text[:-1] + _CODES[text[-1]]
    if len(text) <= _WIDTH:
        return text
    out = []
    position, length = 0, len(text)
    while length - position > _WIDTH:
        cut = position + _WIDTH - 1
        if text[cut - 1] == 61:
            cut -= 1
        elif text[cut - 2] == 61:
            cut -= 2
        out.append(text[position:cut])
        position = cut
    out.append(text[position:])
    return b"=\r\n".join(out)


class SevenBit:
    """Converts one message (wire form) as it is read: ``feed`` it pieces that end with a line."""

    __slots__ = ("_encodes", "_headers", "_held", "_scanner")

    def __init__(self) -> None:
        self._scanner: BodyScanner | None = None
        self._headers: list[bytes] = []
        self._encodes = False
        self._held = b""  # the beginning of a line that is to be encoded

    def feed(self, data: bytes, *, last: bool) -> bytes:
        """What is ready of the converted message. The first piece has all of the message's own headers.

        Raises MimeProblem for parts within parts, deeper than anybody nests them on purpose.
        """
        out: list[bytes] = []
        scanner = self._scanner
        if scanner is None:
            headers, position = split_headers(data)
            values = {header.key: header.value for header in headers}
            scanner = self._scanner = BodyScanner(
                values.get(b"content-type"), values.get(b"content-transfer-encoding"), nesting_limit=500
            )
            self._headers = [data[header.start : header.end] for header in headers]
            # An unlabelled message without MIME-Version is of no known type: it stays.
            self._finish_headers(scanner, out)
            blank = 2 if data.startswith(b"\r\n", position) else 0
            out.append(data[position : position + blank])
            data = data[position + blank :]
        for piece in scanner.feed(data, last=last):
            if piece.kind is Kind.PART_HEADER or piece.kind is Kind.NESTED_HEADER:
                self._end_part(out)
                self._headers.append(piece.data)
                continue
            if self._headers or piece.kind is Kind.BLANK:
                self._finish_headers(scanner, out)
            if piece.kind is Kind.BODY and self._encodes:
                self._encode(piece.data, out)
            else:
                self._end_part(out)
                if piece.kind is not Kind.BODY and piece.kind is not Kind.BLANK:
                    self._encodes = False
                out.append(piece.data)
        if last:
            if self._headers:
                self._finish_headers(scanner, out)
            self._end_part(out)
        return b"".join(out)

    def _finish_headers(self, scanner: BodyScanner, out: list[bytes]) -> None:
        """The headers of a message or part are complete: relabel it if it says that it has 8 bits."""
        headers, self._headers = self._headers, []
        labels = [number for number, header in enumerate(headers) if _key(header) == b"content-transfer-encoding"]
        self._encodes = False
        if labels:
            match = HEADER.match(headers[labels[-1]])
            assert match is not None
            if parse_encoding(match[2]) in _EIGHT_BIT:
                composite = scanner.is_composite
                self._encodes = not composite
                new = b"7bit" if composite else b"quoted-printable"
                headers[labels[-1]] = b"Content-Transfer-Encoding: " + new + b"\r\n"
                for number in reversed(labels[:-1]):
                    del headers[number]
        out += headers

    def _encode(self, data: bytes, out: list[bytes]) -> None:
        lines = (self._held + data).split(b"\r\n")
        self._held = lines.pop()
        for line in lines:
            out.append(quoted_printable(line))
            out.append(b"\r\n")

    def _end_part(self, out: list[bytes]) -> None:
        if self._held:
            out.append(quoted_printable(self._held))
            self._held = b""


def _key(header: bytes) -> bytes:
    return header.partition(b":")[0].strip().lower()

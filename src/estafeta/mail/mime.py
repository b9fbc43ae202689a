"""The MIME structure of a message body: parts, their headers, attached messages.

Source: RFC 2045, RFC 2046, header_checks(5), postconf(5) mime_nesting_limit, mime_boundary_length_limit. Like Postfix, and unlike
a mail reader, a boundary is a line that *begins* with it: what follows on the line does not hide a part.
Invariants: the pieces put together are the input, byte by byte, however it is cut; linear in its input; memory is bounded by
one line or one header of a part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from estafeta.mail.header import HEADER

_TOKEN = re.compile(rb'[^\s()<>@,;:\\"/\[\]?=]+')
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"?', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_LONGEST_PENDING = 1 << 20  # octets of one unfinished line or header that are kept
_DECODED = frozenset((b"", b"7bit", b"8bit", b"binary"))  # encodings that leave an attached message readable
MIME_HEADERS = frozenset(
    (b"mime-version", b"content-type", b"content-transfer-encoding", b"content-disposition", b"content-description",
     b"content-id")
)  # fmt: skip
"""What mime_header_checks sees of a message's own headers."""


class Kind(IntEnum):
    """What a piece is."""

    BODY = 1  # any octets of a body, cut anywhere
    BOUNDARY = 2  # the line before a part
    PART_HEADER = 3  # a logical header of a part
    NESTED_HEADER = 4  # a logical header of an attached message
    CLOSING = 6  # the boundary line after the last part
    BLANK = 5  # the empty line behind the headers of a part or an attached message


class Piece(NamedTuple):
    """A stretch of the body; ``encoding``: of the part that a BODY belongs to."""

    kind: Kind
    data: bytes
    encoding: bytes = b""


class ContentType(NamedTuple):
    """Type and subtype in lower case, and the boundary parameter (empty: none)."""

    type: bytes
    subtype: bytes
    boundary: bytes


_TEXT = ContentType(b"text", b"plain", b"")
_MESSAGE = ContentType(b"message", b"rfc822", b"")


def _tokens(value: bytes) -> list[bytes]:
    """Tokens and single special characters of a structured header; comments go, quoted strings are tokens without quotes."""
    found = []
    position, length = 0, len(value)
    while position < length:
        char = value[position : position + 1]
        if char == b'"':
            match = _QUOTED.match(value, position)
            assert match is not None
            found.append(_ESCAPED.sub(rb"\1", match[1]))
            position = match.end()
        elif char == b"(":
            position = _after_comment(value, position)
        elif char.isspace():
            position += 1
        else:
            match = _TOKEN.match(value, position)
            end = match.end() if match else position + 1
            found.append(value[position:end])
            position = end
    return found


def _after_comment(value: bytes, position: int) -> int:
    depth = 0
    while position < len(value):
        char = value[position]
        if char == 92:
            position += 1
        elif char == 40:
            depth += 1
        elif char == 41:
            depth -= 1
            if depth == 0:
                return position + 1
        position += 1
    return position


def parse_content_type(value: bytes, boundary_limit: int = 2048) -> ContentType:
    """A Content-Type value, with whatever can be read of it; a boundary is cut at ``boundary_limit`` octets."""
    tokens = _tokens(value)
    if len(tokens) < 3 or tokens[1] != b"/":
        return _TEXT._replace(type=tokens[0].lower() if tokens else b"text", subtype=b"")
    boundary = b""
    for at in range(3, len(tokens) - 3):
        if tokens[at] == b";" and tokens[at + 1].lower() == b"boundary" and tokens[at + 2] == b"=":
            boundary = tokens[at + 3][:boundary_limit]
            break
    return ContentType(tokens[0].lower(), tokens[2].lower(), boundary)


def parse_encoding(value: bytes) -> bytes:
    """The Content-Transfer-Encoding, in lower case."""
    tokens = _tokens(value)
    return tokens[0].lower() if tokens else b""


class MimeProblem(Exception):
    """The structure is not acceptable: what is wrong (as Postfix says it), and where it is seen."""

    def __init__(self, problem: str, context: bytes) -> None:
        super().__init__(problem)
        self.problem = problem
        self.context = context


class BodyScanner:
    """Cuts the body of one message into pieces as it comes in.

    ``content_type`` and ``encoding`` are the message's own (None: it has no Content-Type). ``strict_encoding``:
    multipart and message bodies may not be encoded as a whole (RFC 2045 section 6.4).
    """

    __slots__ = (
        "_boundaries", "_boundary_limit", "_encoding", "_in_headers", "_middle", "_nested", "_nesting_limit", "_rest", "_shown",
        "_strict_encoding", "_type",
    )  # fmt: skip

    def __init__(
        self, content_type: bytes | None, encoding: bytes | None, *, nesting_limit: int = 100,
        boundary_limit: int = 2048, strict_encoding: bool = False,
    ) -> None:  # fmt: skip
        self._nesting_limit = nesting_limit
        self._strict_encoding = strict_encoding
        self._shown = b"" if content_type is None else content_type.strip()
        self._boundary_limit = boundary_limit
        self._boundaries: list[tuple[bytes, bool, bytes]] = []  # outermost first; is it a digest, encoding
        self._rest = b""
        self._middle = False  # the last body piece did not end with its line
        self._nested = False
        self._in_headers = False
        self._type = _TEXT if content_type is None else parse_content_type(content_type, boundary_limit)
        self._encoding = b"" if encoding is None else parse_encoding(encoding)
        self._enter()

    @property
    def is_composite(self) -> bool:
        """True if the headers that were complete last belong to a multipart or message body (whose headers may come now)."""
        return self._in_headers or self._type.type in (b"multipart", b"message")

    @property
    def is_plain(self) -> bool:
        """True if the body has no parts: everything will be one BODY."""
        return not self._boundaries and not self._in_headers

    def feed(self, data: bytes, *, last: bool) -> Iterator[Piece]:
        """The pieces that are complete, as they are found; raises MimeProblem (nothing can be fed after that)."""
        if self._rest:
            data, self._rest = self._rest + data, b""
        pieces: list[Piece] = []
        if self.is_plain:
            if data:
                yield Piece(Kind.BODY, data, self._encoding)
            return
        end = len(data)
        if not last:
            end = data.rfind(b"\n") + 1
            if len(data) - end > _LONGEST_PENDING:
                end = len(data)
            self._rest = data[end:]
        position = 0
        while position < end:
            if self._in_headers:
                after = self._header(data, position, end, pieces, last=last)
                if after < 0:
                    self._rest = data[position:end] + self._rest
                    break
                position = after
            else:
                position = self._body(data, position, end, pieces)
            yield from pieces
            pieces.clear()

    def _matching(self, data: bytes, position: int) -> int:
        """The number of the boundary at the line that starts with ``--`` here, innermost first; -1: none."""
        for number in range(len(self._boundaries) - 1, -1, -1):
            if data.startswith(self._boundaries[number][0], position + 2):
                return number
        return -1

    def _body(self, data: bytes, position: int, end: int, pieces: list[Piece]) -> int:
        """One stretch of body up to a boundary or the end."""
        found = end
        number = -1
        if not self._middle and self._boundaries and data.startswith(b"--", position):
            number = self._matching(data, position)
            found = position
        if number < 0:
            found = position
            while self._boundaries:
                found = data.find(b"\n--", found, end)
                if found < 0:
                    break
                found += 1
                number = self._matching(data, found)
                if number >= 0:
                    break
            if number < 0:
                found = end
        if found > position:
            pieces.append(Piece(Kind.BODY, data[position:found], self._encoding))
            self._middle = data[found - 1] != 10
        if number >= 0:
            return self._boundary(data, found, end, number, pieces)
        return found

    def _boundary(self, data: bytes, position: int, end: int, number: int, pieces: list[Piece]) -> int:
        line_end = data.find(b"\n", position, end) + 1 or end
        boundary, digest, encoding = self._boundaries[number]
        closing = data.startswith(b"--", position + 2 + len(boundary))
        pieces.append(Piece(Kind.CLOSING if closing else Kind.BOUNDARY, data[position:line_end]))
        self._middle = False
        if closing:
            del self._boundaries[number:]
            self._in_headers = False
            self._encoding = encoding
        else:
            del self._boundaries[number + 1 :]
            self._start_headers(_MESSAGE if digest else _TEXT, nested=False)
        return line_end

    def _start_headers(self, content_type: ContentType, *, nested: bool) -> None:
        self._in_headers = True
        self._nested = nested
        self._type = content_type
        self._encoding = b""

    def _header(self, data: bytes, position: int, end: int, pieces: list[Piece], *, last: bool) -> int:
        """One header, or the end of the headers; -1: it may go on in the next line, which is not here yet."""
        if self._boundaries and data.startswith(b"--", position):
            number = self._matching(data, position)
            if number >= 0:
                return self._boundary(data, position, end, number, pieces)
        match = HEADER.match(data, position, end)
        if match is not None:
            after = match.end()
            if after == end and not last and end - position < _LONGEST_PENDING:
                return -1
            pieces.append(Piece(Kind.NESTED_HEADER if self._nested else Kind.PART_HEADER, match[0]))
            self._note(match[1].lower(), match[2])
            return after
        self._in_headers = False
        blank = 2 if data.startswith(b"\r\n", position) else 1 if data.startswith(b"\n", position) else 0
        if blank:
            pieces.append(Piece(Kind.BLANK, data[position : position + blank]))
        self._enter()
        return position + blank

    def _note(self, key: bytes, value: bytes) -> None:
        if key == b"content-type":
            self._type = parse_content_type(value, self._boundary_limit)
            self._shown = value.strip()
        elif key == b"content-transfer-encoding":
            self._encoding = parse_encoding(value)

    def _enter(self) -> None:
        """The headers of a message or a part are over: what is its body?"""
        kind = self._type
        if kind.type not in (b"multipart", b"message"):
            return
        encoded = self._encoding not in _DECODED
        if encoded and self._strict_encoding:
            raise MimeProblem("invalid message/* or multipart/* encoding domain", self._encoding)
        if kind.type == b"multipart":
            if kind.boundary:
                if len(self._boundaries) >= self._nesting_limit + 2:  # where Postfix stops, too
                    raise MimeProblem("MIME nesting exceeds safety limit", b"Content-Type: " + self._shown)
                self._boundaries.append((kind.boundary, kind.subtype == b"digest", self._encoding))
        elif kind.subtype == b"rfc822" and not encoded:
            self._start_headers(_TEXT, nested=True)

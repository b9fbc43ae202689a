"""Message headers: finding the logical headers of a message, folding included.

Source: RFC 5322 section 2.2. Content is in wire form (CRLF); a bare LF counts as a line end too, because content that came by
BDAT or from a file may have it. Invariant: linear in its input; the pieces put together are the input.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEADER = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*\n(?:[ \t][^\n]*\n)*)")


class Header(NamedTuple):
    """One logical header: name as written, value with its line ends, where it lies in the content."""

    name: bytes
    value: bytes
    start: int
    end: int

    @property
    def key(self) -> bytes:
        """The name in lower case."""
        return self.name.lower()


def split_headers(content: bytes) -> tuple[list[Header], int]:
    """The headers, and where they end: at the empty line, at the first line that is no header, or at the end."""
    headers: list[Header] = []
    position = 0
    match = HEADER.match
    while True:
        found = match(content, position)
        if found is None:
            return headers, position
        end = found.end()
        headers.append(Header(found[1], found[2], position, end))
        position = end


def has_blank_line(content: bytes, position: int) -> bool:
    """True if the headers that end at ``position`` are followed by an empty line."""
    return content.startswith((b"\r\n", b"\n"), position)

"""Message headers: finding the logical headers of a message, folding included.

Source: RFC 5322 section 2.2. Content is in wire form (CRLF); a bare LF counts as a line end too, because content that came by
BDAT or from a file may have it. Invariant: linear in its input; the pieces put together are the input.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEADER = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*\n(?:[ \t][^\n]*\n)*)")
SENDER_HEADERS = frozenset(
    (b"from", b"sender", b"reply-to", b"errors-to", b"return-receipt-to", b"disposition-notification-to",
     b"mail-followup-to", b"resent-from", b"resent-sender", b"resent-reply-to")
)  # fmt: skip
RECIPIENT_HEADERS = frozenset((b"to", b"cc", b"bcc", b"apparently-to", b"resent-to", b"resent-cc", b"resent-bcc"))
ADDRESS_HEADERS = SENDER_HEADERS | RECIPIENT_HEADERS
"""Headers with addresses that are completed and mapped, by name in lower case."""


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

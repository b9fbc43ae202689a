"""Carriage returns without a line feed: content has none once it is queued.

Source: RFC 5321 section 2.3.8, and what Postfix does: at the end of a line they go, elsewhere each becomes a space. What is
left cannot be taken for a line end by the next host. Invariant: the number of line ends stays.
"""

from __future__ import annotations

import re

_BEFORE_END = re.compile(rb"\r{2,}\n")
_BARE = re.compile(rb"\r(?!\n)")


def without_bare_returns(content: bytes, lines: int) -> bytes:
    """``content`` (wire form) itself, or a clean copy; ``lines`` is the number of its line ends, negative if not known."""
    if content.count(b"\r") == (lines if lines >= 0 else content.count(b"\n")):
        return content
    return _BARE.sub(b" ", _BEFORE_END.sub(b"\r\n", content))

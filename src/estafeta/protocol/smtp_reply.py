"""SMTP replies as a client reads them: bytes in, whole replies out.

Source: RFC 5321 section 4.2; man 5 postconf (smtp_reply_filter, line_length_limit); behaviour of smtp(8) with odd
servers. Invariants: a reply ends with a line of three digits and then a space or nothing; its last line gives code
and status. A line without a reply code is kept as text of the reply and reported in ``garbage``; longer lines and
replies than the limit are cut, never refused. Memory is bounded: only ReplyError (too many lines) is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from estafeta.mail.dsn_code import status_for

LINE_LIMIT = 2048
REPLY_LIMIT = 2048
MAX_LINES = 1000

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ufffd]")


class ReplyError(ValueError):
    """The server's reply does not end."""


@dataclass(frozen=True, slots=True)
class SmtpReply:
    """One reply. ``lines`` are without their CRLF; ``garbage`` is the first line that was none of a reply."""

    code: int
    lines: tuple[bytes, ...]
    truncated: bool = False
    garbage: bytes | None = None

    @property
    def positive(self) -> bool:
        """Whether the code is 2xx."""
        return 200 <= self.code <= 299

    @property
    def status(self) -> str:
        """The enhanced status: that of the last line, or the default of the code."""
        return status_for(self.code, self.lines[-1][4:20].decode("latin-1"))

    @property
    def text(self) -> str:
        """The reply as logged: lines joined by a space, unprintable characters as question marks."""
        return printable(b" ".join(self.lines))

    @property
    def diagnostic(self) -> str:
        """The same as ``text``: what a delivery status notification shows as Diagnostic-Code."""
        return self.text


def printable(raw: bytes) -> str:
    """Return ``raw`` as text for logs: valid UTF-8 is kept, everything unprintable is a question mark."""
    return _UNPRINTABLE.sub("?", raw.decode("utf-8", "replace"))


class ReplyReader:
    """Cuts a stream of bytes into replies. ``line_filter`` is smtp_reply_filter: a line in, a line out."""

    __slots__ = ("_buffer", "_garbage", "_line_filter", "_lines", "_seen", "_size", "_skipping", "_truncated")

    def __init__(self, line_filter: Callable[[bytes], bytes] | None = None) -> None:
        self._line_filter = line_filter
        self._buffer = b""
        self._skipping = False
        self._fresh()

    def _fresh(self) -> None:
        self._lines: list[bytes] = []
        self._size = 0
        self._seen = 0
        self._truncated = False
        self._garbage: bytes | None = None

    def feed(self, data: bytes) -> None:
        """Take more bytes from the server."""
        self._buffer = self._buffer + data if self._buffer else data

    @property
    def empty(self) -> bool:
        """Whether nothing is buffered, not even a part of a reply."""
        return not self._buffer and not self._lines and not self._skipping

    def clear(self) -> None:
        """Throw away what is buffered (STARTTLS)."""
        self._buffer = b""
        self._skipping = False
        self._fresh()

    def next_reply(self) -> SmtpReply | None:
        """Return the next whole reply, None if it is not here yet. Raises ReplyError."""
        position = 0
        buffer = self._buffer
        try:
            while True:
                end = buffer.find(b"\n", position)
                if end < 0:
                    self._bound(position)
                    return None
                line = buffer[position:end]
                position = end + 1
                if self._skipping:
                    # The rest of a line whose start was taken already.
                    self._skipping = False
                    line, self._lines = self._lines[-1], self._lines[:-1]
                reply = self._take(line[:-1] if line.endswith(b"\r") else line)
                if reply is not None:
                    return reply
        finally:
            self._buffer = self._buffer[position:] if position else self._buffer

    def _bound(self, position: int) -> None:
        """Keep only the start of a line that is too long and not here yet (its CR may still belong to it)."""
        if len(self._buffer) - position > LINE_LIMIT + 1:
            if not self._skipping:
                self._lines.append(self._buffer[position : position + LINE_LIMIT])
                self._truncated = True
                self._skipping = True
            self._buffer = self._buffer[:position]

    def _take(self, line: bytes) -> SmtpReply | None:
        if len(line) > LINE_LIMIT:
            line = line[:LINE_LIMIT]
            self._truncated = True
        if self._line_filter is not None:
            line = self._line_filter(line)
        self._seen += 1
        if self._seen > MAX_LINES:
            raise ReplyError("too many lines in a reply")
        code = line[:3]
        is_reply = len(code) == 3 and code.isdigit()
        last = is_reply and line[3:4] in (b"", b" ")
        if not is_reply or not (last or line[3:4] == b"-"):
            last = False
            if self._garbage is None:
                self._garbage = line
        if self._size + len(line) <= REPLY_LIMIT or (last and not self._lines):
            self._lines.append(line)
            self._size += len(line) + 1
        else:
            self._truncated = True
            if last:
                # Code and status come from the last line, so it stays.
                self._lines.append(line)
        if not last:
            return None
        reply = SmtpReply(int(code), tuple(self._lines), self._truncated, self._garbage)
        self._fresh()
        return reply

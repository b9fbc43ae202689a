"""The transcript of an SMTP session for the postmaster: what was said, by whom, and of which kinds of trouble it tells.

Source: postconf(5) notify_classes; the form of the notice as observed from Postfix (headers, `` In:  `` and `` Out: `` lines).
Invariants: entries are references to what is there anyway, not copies; the first and the last of a long session are kept, within
a fixed number of octets; what is said in AUTH, and what may be a password behind it, is never kept.
"""

from __future__ import annotations

import re
import textwrap

_MOST = 240  # entries
_CAPACITY = 65536  # octets of entries
_LONGEST = 512  # octets of one entry
_ENDS = 40  # entries kept at either end when there are too many
_WIDTH = 78
_STRANGE = re.compile("[^ -~]")
SECRET = b"(not shown)"

Entry = bytes | tuple[bytes, ...]


class Transcript:
    """``sent`` takes what this side says, ``got`` what the other side says (lines without their CRLF)."""

    __slots__ = ("_entries", "_room", "_split_at", "classes", "dropped")

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._room = _CAPACITY
        self._split_at = 0
        self.classes: set[str] = set()  # of notify_classes: what happened
        self.dropped = 0

    def sent(self, line: bytes) -> None:
        """This side said ``line`` (several lines with CRLF between them)."""
        if len(line) > _LONGEST:
            line = line[:_LONGEST]
        self._entries.append(line)
        self._room -= len(line)
        if self._room < 0 or len(self._entries) > _MOST:
            self._trim()

    def got(self, *lines: bytes) -> None:
        """The other side said ``lines``. The tuple tells the sides apart."""
        size = 0
        for line in lines:
            size += len(line)
        if size > _LONGEST:
            lines = _shortened(lines)
            size = _LONGEST
        self._entries.append(lines)
        self._room -= size
        if self._room < 0 or len(self._entries) > _MOST:
            self._trim()

    def _trim(self) -> None:
        entries = self._entries
        self.dropped += len(entries) - 2 * _ENDS
        del entries[_ENDS:-_ENDS]
        self._split_at = _ENDS
        self._room = _CAPACITY - 2 * _ENDS * _LONGEST

    def lines(self) -> list[str]:
        """The transcript as it stands in the notice."""
        out: list[str] = []
        for number, entry in enumerate(self._entries):
            if self.dropped and number == self._split_at:
                out.append(f" ... ({self.dropped} more left out)")
            mark, said = (" Out: ", entry.split(b"\r\n")) if isinstance(entry, bytes) else (" In:  ", entry)
            for line in said:
                text = _STRANGE.sub("?", line.decode("latin-1"))
                wrapped = textwrap.wrap(
                    mark + text, _WIDTH, subsequent_indent="     ", break_long_words=False, break_on_hyphens=False
                )
                out += wrapped or [mark.rstrip()]
        return out


def _shortened(lines: tuple[bytes, ...]) -> tuple[bytes, ...]:
    kept: list[bytes] = []
    room = _LONGEST
    for line in lines:
        if room <= 0:
            break
        kept.append(line[:room])
        room -= len(line) + 1
    return tuple(kept)


def without_secrets(line: bytes) -> bytes:
    """An AUTH command or an answer to a challenge, as far as it may be shown: the mechanism."""
    words = line.split(None, 2)
    if words and words[0].upper() == b"AUTH":
        if len(words) == 1:
            return words[0]
        return b"AUTH " + words[1][:20] + (b" " + SECRET if len(words) > 2 else b"")
    return SECRET

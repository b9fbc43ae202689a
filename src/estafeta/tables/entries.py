"""The text form of indexed tables: ``key whitespace value`` (postmap) and ``name: value`` (postalias).

Source: postmap(1) INPUT FILE FORMAT, aliases(5). Invariants: bytes in, a dictionary of bytes out, in the order of the
file; a bad line gives one warning with file and line and is left out; the first of two equal keys wins unless told
otherwise. Quotes around a key are part of the key, as in Postfix, so that a quoted localpart finds its entry.

The postmap reader has a fast path for plain files; everything else goes through the careful one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from estafeta.tables.table import printable

Warn = Callable[[str], None]


# What makes a line more than "key value": continuation, quotes, aliases, white space at an end.
_SURPRISES = (b"\n ", b"\n\t", b'"', b": ", b":\t", b" \n", b"\t\n", b"\r", b"\v", b"\f")


def fold_bytes(key: bytes) -> bytes:
    """``key`` folded to lower case; bytes that are not UTF-8 fold their ASCII letters only."""
    if key.isascii():
        return key.lower()
    try:
        return key.decode().casefold().encode()
    except UnicodeDecodeError:
        return key.lower()


@dataclass(slots=True)
class EntryReader:
    """Collects the entries of one source."""

    path: str
    warn: Warn
    fold: bool = True
    utf8: bool = True
    on_duplicate: str = "warn"  # "warn", "ignore" (-w), "replace" (-r)
    value_of: Callable[[bytes], bytes] | None = None  # -F: file names to contents; raises OSError
    ignoring: str = (
        ""  # ends the warning of a bad line: postmap says nothing, texthash " -- ignoring this line"
    )
    duplicate_prefix: str | None = None  # None: "PATH, line N" (texthash); postmap names the output file
    entries: dict[bytes, bytes] = field(default_factory=dict)

    def _complain(self, line: int, text: str) -> None:
        self.warn(f"{self.path}, line {line}: {text}")

    def _add(self, line: int, key: bytes, value: bytes) -> None:
        if self.value_of is not None:
            try:
                value = self.value_of(value)
            except OSError as err:
                self._complain(line, f"open {printable(err.filename)}: {err.strerror}: skipping this entry")
                return
        if self.fold:
            key = fold_bytes(key)
        if key in self.entries:
            if self.on_duplicate == "ignore":
                return
            if self.on_duplicate == "warn":
                place = self.duplicate_prefix or f"{self.path}, line {line}"
                self.warn(f'{place}: duplicate entry: "{printable(key)}"')
                return
        self.entries[key] = value

    def read_map(self, data: bytes) -> None:
        """Add the entries of a postmap source."""
        for line, text in _logical(data):
            self._map_line(line, text)

    def read_map_fast(self, data: bytes) -> None:
        """As ``read_map``; a plain file without surprises is split in bulk, three times as fast."""
        entries = self._plain_entries(data) if self.value_of is None and not self.entries else None
        if entries is None:
            self.read_map(data)
        else:
            self.entries = entries

    def _plain_entries(self, data: bytes) -> dict[bytes, bytes] | None:
        """All entries of a file of "key value" and comment lines only; None: something needs a closer look."""
        if not data.isascii() or data[:1] in (b" ", b"\t") or any(odd in data for odd in _SURPRISES):
            return None
        lines = [line for line in data.split(b"\n") if line and line[0] != 35]
        pairs = [line.split(None, 1) for line in lines]
        del lines
        if not pairs:
            return {}
        if set(map(len, pairs)) != {2}:
            return None
        if self.fold:
            entries = {key.lower(): value for key, value in pairs}
        else:
            entries = dict(pairs)
        # Fewer entries than lines: there are duplicates to warn of, line by line.
        return entries if len(entries) == len(pairs) else None

    def _map_line(self, line: int, text: bytes) -> None:
        text = text.strip()
        if self.utf8 and not _valid(text):
            self._complain(line, f'non-UTF-8 input "{printable(text)}" -- ignoring this line')
            return
        if text[:1] == b'"':
            end = _closing_quote(text)
            if end < 0:
                self._complain(line, f"unbalanced '\"' in '{printable(text)}' -- ignoring this line")
                return
            # White space inside the quotes is part of the key; what follows up to the next white space too.
            while end < len(text) and text[end] not in b" \t\r\n\v\f":
                end += 1
            key, value = text[:end], text[end:].lstrip()
        else:
            pair = text.split(None, 1)
            key, value = (pair[0], pair[1]) if len(pair) == 2 else (text, b"")
        if not value:
            self._complain(line, f"expected format: key whitespace value{self.ignoring}")
            return
        if key.endswith(b":"):
            self._complain(line, 'record is in "key: value" format; is this an alias file?')
        self._add(line, key, value)

    def read_aliases(self, data: bytes) -> None:
        """Add the entries of an alias source."""
        for line, text in _logical(data):
            text = text.rstrip()
            if self.utf8 and not _valid(text):
                self._complain(line, f'non-UTF-8 input "{printable(text)}" -- ignoring this line')
                continue
            found = split_alias(text)
            if isinstance(found, str):
                self._complain(line, found)
                continue
            self._add(line, *found)


def _valid(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _logical(data: bytes) -> Iterable[tuple[int, bytes]]:
    number = 0
    parts: list[bytes] = []
    for at, line in enumerate(data.split(b"\n"), 1):
        stripped = line.lstrip()
        if not stripped or stripped[0] == 35:
            continue
        if line[0] in b" \t\r\v\f" and parts:
            parts.append(line)
            continue
        if parts:
            yield number, b"".join(parts)
        parts = [line]
        number = at
    if parts:
        yield number, b"".join(parts)


def _closing_quote(text: bytes) -> int:
    """Index just after the quote that closes ``text[0]``, or -1."""
    at = 1
    while True:
        quote = text.find(b'"', at)
        if quote < 0:
            return -1
        back = text.find(b"\\", at, quote)
        if back < 0:
            return quote + 1
        at = back + 2


def split_alias(text: bytes) -> tuple[bytes, bytes] | str:
    """The name (unquoted) and value of an alias line, or what is wrong with it.

    The name follows the rules of an RFC 822 local address: comments are kept apart, quotes removed.
    """
    words: list[bytes] = []
    at = 0
    colon = -1
    while at < len(text):
        char = text[at : at + 1]
        if char == b'"':
            end = _closing_quote(text[at:])
            if end < 0:
                return "need name:value pair"
            words.append(_unquote(text[at + 1 : at + end - 1]))
            at += end
        elif char == b"(":
            end = text.find(b")", at)
            if end < 0:
                return "need name:value pair"
            words.append(text[at : end + 1])
            at = end + 1
        elif char == b":":
            colon = at
            break
        elif char in b" \t\r\n":
            at += 1
        elif char == b"@":
            return "name must be local"
        elif char in b"<>,;[]\\":
            return "need name:value pair"
        else:
            end = at
            while end < len(text) and text[end] not in b' \t\r\n":(@<>,;[]\\':
                end += 1
            words.append(text[at:end])
            at = end
    if colon < 0 or not words:
        return "need name:value pair"
    value = normal_value(text[colon + 1 :])
    if not value:
        return "need name:value pair"
    return b" ".join(words), value


_VALUE_TOKEN = re.compile(
    rb'([ \t\r\n\v\f]+)|("(?:[^"\\]|\\.)*(?:"|\\?\Z))|(\((?:[^()\\]|\\.)*\))|(,)|([<>@])|((?:[^ \t\r\n\v\f",()<>@\\]|\\.)+|.)',
    re.DOTALL,
)


def normal_value(value: bytes) -> bytes:
    """An alias value as it is stored: items separated by ", ", words by one space, none around ``@ < >``."""
    out: list[bytes] = []
    for token in _VALUE_TOKEN.finditer(value.strip()):
        text = token.group()
        glued = not out or out[-1] in (b", ", b" ", b"<", b"@")
        if token.lastindex == 1:
            if not glued:
                out.append(b" ")
        elif token.lastindex in (4, 5) and text != b"<":
            if out and out[-1] == b" ":
                out.pop()
            out.append(b", " if text == b"," else text)
        else:
            out.append(text)
    return b"".join(out).strip()


def _unquote(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    out = bytearray()
    at = 0
    while at < len(text):
        if text[at] == 92 and at + 1 < len(text):
            at += 1
        out.append(text[at])
        at += 1
    return bytes(out)

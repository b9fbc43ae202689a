"""The exact engine of regexp: tables: regcomp(3) and regexec(3) of the C library, through ctypes.

Source: regexp_table(5), regex(7). Invariants: patterns are compiled in the C locale, as in a Postfix daemon (a byte is
a character, only ASCII letters have case); subject text ends at a NUL.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

_LINUX = sys.platform.startswith("linux")
_EXTENDED, _ICASE = 1, 2
_NEWLINE, _NOSUB = (4, 8) if _LINUX else (8, 4)
_NO_MATCH = 1
_SIZE_OF_REGEX_T = 512  # generous: 64 bytes in glibc, less elsewhere
_LC_ALL_MASK = 0x1FBF if _LINUX else 0x3F


class PatternError(Exception):
    """A pattern does not compile; the argument says why."""


class MatchFailed(Exception):
    """The engine gave up on a subject; the argument says why."""


class PosixRegex:
    """One compiled pattern."""

    __slots__ = ("_library", "_offsets", "_regex", "groups")

    def __init__(self, library: PosixLibrary, pattern: bytes, flags: int) -> None:
        self._library = library
        self._regex = None
        regex = ctypes.create_string_buffer(_SIZE_OF_REGEX_T)
        status = library.compile(regex, pattern, flags)
        if status:
            text = ctypes.create_string_buffer(256)
            library.c.regerror(status, regex, text, 256)
            raise PatternError(text.value.decode("utf-8", "replace"))
        self._regex = regex
        self.groups = count_groups(pattern, bool(flags & _EXTENDED))
        self._offsets = (library.offset_type * (2 * (self.groups + 1)))()

    def matches(self, subject: bytes) -> bool:
        """Whether the pattern is found in ``subject``; raises MatchFailed."""
        status: int = self._library.c.regexec(self._regex, subject, 0, None, 0)
        if status not in (0, _NO_MATCH):
            raise MatchFailed(f"regexec error {status}")
        return status == 0

    def capture(self, subject: bytes) -> list[bytes] | None:
        """The text of group 0, 1 ... (empty when a group took no part); None when there is no match."""
        offsets = self._offsets
        status = self._library.c.regexec(self._regex, subject, self.groups + 1, offsets, 0)
        if status == _NO_MATCH:
            return None
        if status:
            raise MatchFailed(f"regexec error {status}")
        return [
            subject[offsets[at] : offsets[at + 1]] if offsets[at] >= 0 else b""
            for at in range(0, len(offsets), 2)
        ]

    def __del__(self) -> None:
        if self._regex is not None:
            self._library.c.regfree(self._regex)


class PosixLibrary:
    """The C library's regex functions; one per table."""

    out_of_range = "out-of-range"
    ending = "skipping"
    flag_letters = "imx"

    def __init__(self) -> None:
        self.c: Any = ctypes.CDLL(None)
        self.c.regexec.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
            ctypes.c_int,
        ]
        self.c.regcomp.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
        self.c.regerror.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        self.c.regerror.restype = ctypes.c_size_t
        self.c.regfree.argtypes = [ctypes.c_void_p]
        self.c.regfree.restype = None
        self.c.newlocale.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]
        self.c.newlocale.restype = ctypes.c_void_p
        self.c.uselocale.argtypes = [ctypes.c_void_p]
        self.c.uselocale.restype = ctypes.c_void_p
        self._c_locale = self.c.newlocale(_LC_ALL_MASK, b"C", None)
        self.offset_type: Any = self._probe_offset_type()

    def compile(self, regex: Any, pattern: bytes, flags: int) -> int:
        """regcomp in the C locale: the compiled pattern keeps the locale's idea of characters."""
        before = self.c.uselocale(self._c_locale) if self._c_locale else None
        try:
            return int(self.c.regcomp(regex, pattern, flags))
        finally:
            if before:
                self.c.uselocale(before)

    def _probe_offset_type(self) -> Any:
        # regoff_t is an int in glibc and a long elsewhere: ask the library.
        regex = ctypes.create_string_buffer(_SIZE_OF_REGEX_T)
        self.compile(regex, b"b", _EXTENDED)
        offsets = (ctypes.c_int32 * 8)()
        self.c.regexec(regex, b"ab", 1, offsets, 0)
        self.c.regfree(regex)
        return ctypes.c_int32 if list(offsets[:2]) == [1, 2] else ctypes.c_int64

    def compile_pattern(self, pattern: bytes, flags: str, want_groups: bool) -> PosixRegex:
        """Compile with the flags of regexp_table(5); raises PatternError."""
        bits = _EXTENDED | _ICASE
        for letter in flags:
            bits ^= {"i": _ICASE, "m": _NEWLINE, "x": _EXTENDED}[letter]
        if not want_groups:
            bits |= _NOSUB
        return PosixRegex(self, pattern, bits)


def count_groups(pattern: bytes, extended: bool) -> int:
    """How many ``( )`` groups the pattern has."""
    groups = 0
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == 92:  # backslash
            if not extended and pattern[at + 1 : at + 2] == b"(":
                groups += 1
            at += 2
            continue
        if char == 91:  # [
            at = end_of_bracket(pattern, at)
            continue
        if char == 40 and extended:  # (
            groups += 1
        at += 1
    return groups


def end_of_bracket(pattern: bytes, at: int) -> int:
    """Index after the POSIX bracket expression that starts at ``at``."""
    at += 1
    if pattern[at : at + 1] == b"^":
        at += 1
    if pattern[at : at + 1] == b"]":
        at += 1
    while at < len(pattern) and pattern[at] != 93:
        if pattern[at] == 91 and pattern[at + 1 : at + 2] in (b":", b".", b"="):
            close = pattern.find(pattern[at + 1 : at + 2] + b"]", at + 2)
            at = len(pattern) if close < 0 else close + 2
        else:
            at += 1
    return at + 1

"""The exact engine of pcre: tables: the system's libpcre2-8, through ctypes.

Source: pcre_table(5), pcre2api(3). Invariants: bytes are characters (no UTF mode, as Postfix does by default); every
match runs under a limit, so that a hostile line costs milliseconds and ends in MatchFailed.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

from estafeta.tables.posix_regex import MatchFailed, PatternError
from estafeta.tables.table import TableError

_OPTIONS = {
    "i": 0x00000008,  # CASELESS
    "m": 0x00000400,  # MULTILINE
    "s": 0x00000020,  # DOTALL
    "x": 0x00000080,  # EXTENDED
    "A": 0x80000000,  # ANCHORED
    "E": 0x00000010,  # DOLLAR_ENDONLY
    "U": 0x00040000,  # UNGREEDY
    "X": 0,  # EXTRA is gone in PCRE2
}
_JIT_COMPLETE = 1
_NO_MATCH = -1
_MATCH_LIMIT, _DEPTH_LIMIT, _HEAP_LIMIT = -47, -53, -63
_INFO_CAPTURE_COUNT = 4
_LIMIT_STEPS = 500_000


class PcreRegex:
    """One compiled pattern."""

    __slots__ = ("_code", "_data", "_library", "_ovector", "groups")

    def __init__(self, library: PcreLibrary, pattern: bytes, options: int) -> None:
        self._library = library
        self._code = None
        self._data = None
        c = library.c
        error = ctypes.c_int()
        offset = ctypes.c_size_t()
        code = c.pcre2_compile_8(
            pattern, len(pattern), options, ctypes.byref(error), ctypes.byref(offset), None
        )
        if not code:
            text = ctypes.create_string_buffer(256)
            c.pcre2_get_error_message_8(error.value, text, 256)
            raise PatternError(
                f"error in regex at offset {offset.value}: {text.value.decode('utf-8', 'replace')}"
            )
        self._code = code
        c.pcre2_jit_compile_8(code, _JIT_COMPLETE)  # no JIT here: the interpreter does it
        count = ctypes.c_uint32()
        c.pcre2_pattern_info_8(code, _INFO_CAPTURE_COUNT, ctypes.byref(count))
        self.groups = count.value
        self._data = c.pcre2_match_data_create_from_pattern_8(code, None)
        self._ovector = c.pcre2_get_ovector_pointer_8(self._data)

    def _match(self, subject: bytes) -> int:
        status: int = self._library.c.pcre2_match_8(
            self._code, subject, len(subject), 0, 0, self._data, self._library.context
        )
        if status < _NO_MATCH:
            if status in (_MATCH_LIMIT, _DEPTH_LIMIT, _HEAP_LIMIT):
                raise MatchFailed("match limit exceeded")
            raise MatchFailed(f"pcre2 error {status}")
        return status

    def matches(self, subject: bytes) -> bool:
        """Whether the pattern is found in ``subject``; raises MatchFailed."""
        return self._match(subject) >= 0

    def capture(self, subject: bytes) -> list[bytes] | None:
        """The text of group 0, 1 ... (empty when a group took no part); None when there is no match."""
        status = self._match(subject)
        if status < 0:
            return None
        ovector = self._ovector
        found = []
        for group in range(self.groups + 1):
            if group < status and ovector[2 * group] <= len(subject):
                found.append(subject[ovector[2 * group] : ovector[2 * group + 1]])
            else:
                found.append(b"")
        return found

    def __del__(self) -> None:
        if self._data:
            self._library.c.pcre2_match_data_free_8(self._data)
        if self._code:
            self._library.c.pcre2_code_free_8(self._code)


class PcreLibrary:
    """libpcre2-8; one per table."""

    out_of_range = "out of range"
    ending = "ignoring"
    flag_letters = "imsxAEUX"

    def __init__(self) -> None:
        """Raises TableError when the machine has no libpcre2-8."""
        c = _load()
        if c is None:
            raise TableError("pcre: tables need the library libpcre2-8 (Debian: apt install libpcre2-8-0)")
        self.c: Any = c
        void, size, u32 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32
        c.pcre2_compile_8.argtypes = [ctypes.c_char_p, size, u32, void, void, void]
        c.pcre2_compile_8.restype = void
        c.pcre2_jit_compile_8.argtypes = [void, u32]
        c.pcre2_get_error_message_8.argtypes = [ctypes.c_int, ctypes.c_char_p, size]
        c.pcre2_pattern_info_8.argtypes = [void, u32, void]
        c.pcre2_match_data_create_from_pattern_8.argtypes = [void, void]
        c.pcre2_match_data_create_from_pattern_8.restype = void
        c.pcre2_get_ovector_pointer_8.argtypes = [void]
        c.pcre2_get_ovector_pointer_8.restype = ctypes.POINTER(size)
        c.pcre2_match_8.argtypes = [void, ctypes.c_char_p, size, size, u32, void, void]
        c.pcre2_match_data_free_8.argtypes = [void]
        c.pcre2_match_data_free_8.restype = None
        c.pcre2_code_free_8.argtypes = [void]
        c.pcre2_code_free_8.restype = None
        c.pcre2_match_context_create_8.argtypes = [void]
        c.pcre2_match_context_create_8.restype = void
        c.pcre2_match_context_free_8.argtypes = [void]
        c.pcre2_match_context_free_8.restype = None
        c.pcre2_set_match_limit_8.argtypes = [void, u32]
        self.context = c.pcre2_match_context_create_8(None)
        c.pcre2_set_match_limit_8(self.context, _LIMIT_STEPS)

    def compile_pattern(self, pattern: bytes, flags: str, want_groups: bool) -> PcreRegex:
        """Compile with the flags of pcre_table(5); raises PatternError."""
        options = _OPTIONS["i"] | _OPTIONS["s"]
        for letter in flags:
            options ^= _OPTIONS[letter]
        return PcreRegex(self, pattern, options)

    def __del__(self) -> None:
        context = getattr(self, "context", None)
        if context:
            self.c.pcre2_match_context_free_8(context)


def _load() -> Any:
    # The usual name first: find_library starts programs, which takes long and is impossible in a jail.
    for name in ("libpcre2-8.so.0", "libpcre2-8.dylib"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    found = ctypes.util.find_library("pcre2-8")
    return ctypes.CDLL(found) if found else None

"""Which rules of a pattern table can match at all: one pass of re2.Set over the subject, linear in its length.

Source: google-re2; libraries.md section 5. Invariant: never leaves out a rule that the exact engine would match. A
pattern whose meaning in RE2 might differ (escapes, lookaround, possessive and doubled repetition, the x flag) is not
given to RE2 but tried always; so are all rules on the few subjects where ``$`` or ``\\s`` differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from estafeta.tables.posix_regex import end_of_bracket

_MIN_PATTERNS = 4  # below this the exact engine alone is as fast
_SAME_ESCAPES = frozenset(b"wWsSbB")  # mean the same to glibc and RE2
_SAME_ESCAPES_PCRE = _SAME_ESCAPES | frozenset(b"dDnrtfaAz")
_DIFFERENT_PUNCTUATION = frozenset(b"<>'`")  # word and buffer limits in glibc
_REPEATED = re.compile(rb"(?:[*+?]|\{[0-9,]*\})[*+?{]")
_ODD_POSIX = re.compile(rb"\{,|\[\[[.=]|\[[^]]*\[[.=]|(?:^|[(|^])[*+?{]|\(\||\|\||\|\)|\(\)|^\||\|$|\^\*")


def re2_form(pattern: bytes, flags: str, kind: str) -> bytes | None:
    """The pattern for RE2 in Latin-1 mode, matching at least what the exact engine matches; None: do not use RE2."""
    if "x" in flags or not pattern.isascii():
        return None  # free spacing; letters whose case folding differs
    posix = kind == "regexp"
    if _REPEATED.search(pattern) and (posix or _possessive(pattern)):
        return None
    if posix and _ODD_POSIX.search(pattern):
        return None
    escapes = _SAME_ESCAPES if posix else _SAME_ESCAPES_PCRE
    out = bytearray()
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == 92:
            if at + 1 >= len(pattern):
                return None
            escaped = pattern[at + 1]
            if chr(escaped).isalnum() or escaped >= 0x80 or escaped == 95:
                if escaped not in escapes:
                    return None
            elif posix and escaped in _DIFFERENT_PUNCTUATION:
                return None
            out += pattern[at : at + 2]
            at += 2
        elif char == 91 and posix:
            end = end_of_bracket(pattern, at)
            if end > len(pattern):
                return None
            # A backslash is an ordinary character inside of a POSIX bracket expression.
            out += pattern[at:end].replace(b"\\", b"\\\\")
            at = end
        elif char == 40 and _odd_group(pattern, at + 1, posix):
            return None
        else:
            out.append(char)
            at += 1
    options = b""
    if flags.count("i") % 2 == 0:
        options += b"i"
    if flags.count("m") % 2:
        options += b"m"
    return b"(?" + options + b"s)" + bytes(out)


_INLINE_FLAGS = re.compile(rb"\?[imsU-]*[:)]")


def _odd_group(pattern: bytes, at: int, posix: bool) -> bool:
    """Whether what follows a ``(`` may mean something else to RE2."""
    after = pattern[at : at + 1]
    if after == b"*":
        return True
    return after == b"?" and (posix or not _INLINE_FLAGS.match(pattern, at))


def _possessive(pattern: bytes) -> bool:
    # "a+?" is lazy to PCRE and RE2 alike; "a++" is possessive to PCRE only.
    return any(match.group()[-1:] != b"?" for match in _REPEATED.finditer(pattern))


class Prefilter:
    """Candidates among numbered patterns."""

    __slots__ = ("_always", "_numbers", "_set", "_total")

    def __init__(self, forms: Sequence[bytes | None]) -> None:
        """``forms[n]`` is the RE2 form of pattern n, or None when it must be tried always."""
        self._total = len(forms)
        self._always: frozenset[int] = frozenset(range(len(forms)))
        self._numbers: list[int] = []
        self._set: Any = None
        if sum(form is not None for form in forms) < _MIN_PATTERNS:
            return
        try:
            import re2
        except ImportError:
            return  # slower, and just as exact
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.never_capture = True
        options.max_mem = max(64 << 20, 32768 * len(forms))
        pattern_set = re2.Set.SearchSet(options)
        always = set()
        numbers = []
        for number, form in enumerate(forms):
            if form is None:
                always.add(number)
                continue
            try:
                pattern_set.Add(form)
            except re2.error:
                always.add(number)
            else:
                numbers.append(number)
        if not numbers:
            return
        try:
            pattern_set.Compile()
        except re2.error:
            return
        self._set = pattern_set
        self._numbers = numbers
        self._always = frozenset(always)

    def candidates(self, subject: bytes) -> list[int] | None:
        """Numbers of the patterns that can match, in order; None: any of them can."""
        # RE2's "$" does not look before a last newline and its "\s" does not know the vertical tab.
        if self._set is None or subject.endswith(b"\n") or b"\v" in subject:
            return None
        numbers = self._numbers
        hits = [numbers[hit] for hit in self._set.Match(subject) or ()]
        if self._always:
            hits.extend(self._always)
        hits.sort()
        return hits


_ANCHORS_OF_TEXT = re.compile(rb"\\[AzZG]|\(\?")  # mean the whole subject, or change what ^ and $ mean


class LineFilter:
    """Whether any line of a text can match any pattern: one pass over the text instead of one for each line.

    Only where every pattern has a form that means at least as much with ``^`` and ``$`` at the lines of a text. Invariant: "no"
    is certain.
    """

    __slots__ = ("_set",)

    def __init__(self, forms: Sequence[bytes | None]) -> None:
        """``forms`` as for Prefilter."""
        self._set: Any = None
        lines = []
        for form in forms:
            if form is None:
                return
            head, _, pattern = form.partition(b")")
            if _ANCHORS_OF_TEXT.search(pattern):
                return
            lines.append((b"(?im)" if b"i" in head else b"(?m)") + pattern)
        try:
            import re2
        except ImportError:
            return
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.never_capture = True
        options.max_mem = max(64 << 20, 32768 * len(forms))
        pattern_set = re2.Set.SearchSet(options)
        try:
            for line in lines:
                pattern_set.Add(line)
            pattern_set.Compile()
        except re2.error:
            return
        self._set = pattern_set

    def excludes(self, text: bytes) -> bool:
        """True if certainly no line of ``text`` (LF line ends) matches; false says nothing."""
        if self._set is None or b"\v" in text or b"\0" in text:
            return False
        return not self._set.Match(text)

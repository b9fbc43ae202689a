"""Queue ids: short and long forms.

Source: postconf(5) enable_long_queue_ids. Short: five hexadecimal digits of microseconds as Postfix has them, then the
seconds and the maker's number, so that an id does not come back while its message may still be queued. Long: six base-52
digits of seconds, four of microseconds, ``z``, then the maker's number in base 51.

Invariants: one maker never gives the same id twice; two makers with different numbers never give the same id.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_BASE52 = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_VALID = re.compile(r"[0-9A-Za-z]{6,40}")


def is_queue_id(text: str) -> bool:
    """True if ``text`` has the form of a queue id (and so is safe as a file name)."""
    return _VALID.fullmatch(text) is not None


def _digits(number: int, alphabet: str, width: int) -> str:
    base = len(alphabet)
    out: list[str] = []
    while number or len(out) < width:
        number, digit = divmod(number, base)
        out.append(alphabet[digit])
    return "".join(reversed(out))


class QueueIdMaker:
    """Gives queue ids from a clock (nanoseconds since 1970) and the number of the process."""

    def __init__(self, number: int, clock_ns: Callable[[], int], *, long: bool = False) -> None:
        self._number = number
        self._suffix = f"{number & 0xFFF:03X}"
        self._clock_ns = clock_ns
        self._long = long
        self._last_us = 0

    def next(self) -> str:
        """A new id; within one microsecond the clock is moved on by one."""
        now_us = self._clock_ns() // 1000
        if now_us <= self._last_us:
            now_us = self._last_us + 1
        self._last_us = now_us
        seconds, micros = divmod(now_us, 1_000_000)
        if self._long:
            head = _digits(seconds, _BASE52, 6) + _digits(micros, _BASE52, 4)
            return f"{head}z{_digits(self._number, _BASE52[:51], 1)}"
        return f"{micros:05X}{seconds & 0xFFFFF:05X}{self._suffix}"

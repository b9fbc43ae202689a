"""Notice a changed file by stat(2), at most once in an interval.

Source: DESIGN.md section 2 ("a changed table is noticed without reload"). Invariants: a file that cannot be seen
(swap in progress, jail) counts as unchanged, so that the data already loaded stay in use; a change is reported until
``accept`` confirms that it was loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable

Stamp = tuple[int, int, int, int]


def stamp_of(path: str) -> Stamp | None:
    """What identifies the contents of ``path`` now (device, inode, size, mtime in ns); None when it is not visible."""
    try:
        st = os.stat(path)
    except OSError:
        return None
    return (st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns)


class FileWatch:
    """Watches one file."""

    __slots__ = ("_clock", "_interval_s", "_next_s", "path", "stamp")

    def __init__(self, path: str, clock: Callable[[], float], interval_s: float) -> None:
        self.path = path
        self._clock = clock
        self._interval_s = interval_s
        self._next_s = clock() + interval_s
        self.stamp = stamp_of(path)

    def changed(self) -> Stamp | None:
        """The new stamp when the file differs from what was accepted and the interval has passed."""
        now = self._clock()
        if now < self._next_s:
            return None
        self._next_s = now + self._interval_s
        stamp = stamp_of(self.path)
        if stamp is None or stamp == self.stamp:
            return None
        return stamp

    def accept(self, stamp: Stamp | None) -> None:
        """The contents with ``stamp`` (taken before they were read) are loaded."""
        self.stamp = stamp

"""A bounded cache of values with a time to live; the clock is an argument.

Invariants: never more than ``max_entries``; an entry is not returned at or after its end; the oldest entry
goes first.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """Keeps ``value`` under ``key`` for a number of seconds of ``clock`` (any monotonic seconds)."""

    __slots__ = ("_clock", "_entries", "_max_entries")

    def __init__(self, clock: Callable[[], float], max_entries: int = 5000) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._entries: dict[K, tuple[float, V]] = {}

    def get(self, key: K) -> V | None:
        """Return the live value or None."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            del self._entries[key]
            return None
        return entry[1]

    def put(self, key: K, value: V, ttl_s: float) -> None:
        """Store ``value``; a time to live of zero or less stores nothing."""
        self._entries.pop(key, None)
        if ttl_s <= 0:
            return
        while len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (self._clock() + ttl_s, value)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

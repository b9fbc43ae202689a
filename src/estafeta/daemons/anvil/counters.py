"""The arithmetic of anvil(8), without clock or sockets.

Source: anvil(8), postconf(5) anvil_rate_time_unit. A client is ``service:address``. Rates count the events since the client's
present time unit began; the unit begins anew with the first event after its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

RATES = ("connect", "message", "recipient", "auth", "newtls")


@dataclass(slots=True)
class _Client:
    started_at: float
    count: int = 0
    rates: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Peak:
    """The highest value since the last report, whose it was, when (Unix time)."""

    value: int = 0
    client: str = ""
    at: float = 0.0

    def see(self, value: int, client: str, now: float) -> None:
        """Take a value."""
        if value > self.value:
            self.value, self.client, self.at = value, client, now


class Counters:
    """All clients."""

    def __init__(self, unit_s: float) -> None:
        self._unit_s = unit_s
        self._clients: dict[str, _Client] = {}
        self.peaks: dict[str, Peak] = {}
        self.largest = Peak()

    def event(self, kind: str, client: str, now: float) -> tuple[int, int]:
        """(connections, events of this kind in this time unit), the new one counted."""
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client(now)
            self.largest.see(len(self._clients), "", now)
        elif known.started_at + self._unit_s < now:
            known.started_at = now
            known.rates.clear()
        rate = known.rates[kind] = known.rates.get(kind, 0) + 1
        if kind == "connect":
            known.count += 1
            self.peaks.setdefault("count", Peak()).see(known.count, client, now)
        self.peaks.setdefault(kind, Peak()).see(rate, client, now)
        return known.count, rate

    def disconnect(self, client: str) -> None:
        """A connection has ended."""
        known = self._clients.get(client)
        if known is not None and known.count > 0:
            known.count -= 1

    def forget_idle(self, now: float) -> None:
        """Drop clients without connections whose time unit is over."""
        for client in [c for c, k in self._clients.items() if not k.count and k.started_at + self._unit_s < now]:
            del self._clients[client]

    def __len__(self) -> int:
        return len(self._clients)

    def report(self) -> list[tuple[str, Peak]]:
        """(what, its peak) since the last report."""
        lines = [(f"connection {what}" if what == "count" else f"{_WORDS[what]} rate", peak) for what, peak in self.peaks.items()]
        if self.largest.value:
            lines.append(("cache size", self.largest))
        self.peaks = {}
        self.largest = Peak()
        return lines


_WORDS = {"connect": "connection", "message": "message", "recipient": "recipient", "auth": "auth", "newtls": "newtls"}

"""The requests that wait for one transport and next hop, and how many are under way."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from estafeta.daemons.qmgr.feedback import Window
from estafeta.daemons.qmgr.message import Request
from estafeta.daemons.qmgr.settings import TransportSettings


@dataclass(slots=True, eq=False)
class Destination:
    """``key`` is the next hop, or the recipient where a transport takes one recipient at a time."""

    transport: str
    nexthop: str
    key: str
    window: Window
    rate_delay_s: float
    waiting: deque[Request] = field(default_factory=deque)
    in_flight: int = 0
    dead_until: float = 0.0
    dead_reason: str = ""
    dead_dsn: str = ""
    not_before: float = 0.0  # rate delay
    timed: bool = False  # a timer will look at it again

    @property
    def idle(self) -> bool:
        return not self.waiting and self.in_flight == 0


def new_destination(transport: str, nexthop: str, key: str, settings: TransportSettings) -> Destination:
    """A destination that nothing is known of yet."""
    limit = 1 if settings.rate_delay_s > 0 else settings.concurrency_limit
    initial = min(settings.initial, limit) if limit else settings.initial
    window = Window(initial, limit, initial, settings.positive, settings.negative, settings.cohort_limit)
    return Destination(transport, nexthop, key, window, settings.rate_delay_s)

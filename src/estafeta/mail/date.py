"""Dates in mail headers (RFC 5322 section 3.3), local time with the zone's name in a comment as mail systems write them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(16)
def _format(second: int) -> str:
    moment = datetime.fromtimestamp(second, UTC).astimezone()
    offset = moment.strftime("%z")
    zone = moment.tzname() or "UTC"
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day:2d} {_MONTHS[moment.month - 1]} {moment.year:04d} "
        f"{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d} {offset} ({zone})"
    )


def rfc5322_date(when: float) -> str:
    """``Sun, 22 Nov 2026 15:33:58 +0000 (UTC)`` for a Unix time in seconds."""
    return _format(int(when))

"""anvil's arithmetic: connections, rates, time units, peaks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from estafeta.daemons.anvil.counters import Counters


def test_connections_and_rates() -> None:
    counters = Counters(60)
    assert counters.event("connect", "smtp:a", 0) == (1, 1)
    assert counters.event("connect", "smtp:a", 1) == (2, 2)
    assert counters.event("message", "smtp:a", 2) == (2, 1)
    assert counters.event("connect", "smtp:b", 2) == (1, 1)
    counters.disconnect("smtp:a")
    assert counters.event("connect", "smtp:a", 30) == (2, 3)
    assert counters.event("connect", "smtp:a", 61) == (3, 1), "a new time unit"


def test_idle_clients_are_forgotten() -> None:
    counters = Counters(60)
    counters.event("connect", "a", 0)
    counters.forget_idle(100)
    assert len(counters) == 1, "it is still connected"
    counters.disconnect("a")
    counters.disconnect("a")
    counters.forget_idle(50)
    assert len(counters) == 1
    counters.forget_idle(100)
    assert len(counters) == 0


def test_report() -> None:
    counters = Counters(60)
    counters.event("connect", "smtp:a", 5)
    counters.event("connect", "smtp:a", 6)
    peaks = dict(counters.report())
    assert peaks["connection count"].value == 2 and peaks["connection rate"].client == "smtp:a"
    assert peaks["cache size"].value == 1
    assert counters.report() == []


@given(st.lists(st.tuples(st.sampled_from(["connect", "gone", "message"]), st.sampled_from("ab")), max_size=60))
def test_the_count_is_what_is_open(events: list[tuple[str, str]]) -> None:
    counters = Counters(60)
    opened = {"a": 0, "b": 0}
    for now, (kind, client) in enumerate(events):
        if kind == "gone":
            opened[client] = max(0, opened[client] - 1)
            counters.disconnect(client)
        else:
            opened[client] += kind == "connect"
            assert counters.event(kind, client, now)[0] == opened[client]

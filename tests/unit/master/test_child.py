"""When the master starts a worker, and what share of the clients it gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.master.child import ServiceState, wants_listening, worker_share, workers_for


@pytest.mark.parametrize(
    ("maxproc", "cores", "most", "expected"),
    [(0, 4, 0, 4), (100, 4, 0, 4), (1, 4, 0, 1), (2, 4, 0, 2), (100, 4, 1, 1), (0, 4, 1, 1), (100, 1, 0, 1), (3, 2, 5, 2)],
)
def test_workers(maxproc: int, cores: int, most: int, expected: int) -> None:
    assert workers_for(maxproc, cores, most) == expected


@given(st.integers(0, 10000), st.integers(1, 64))
def test_shares_add_up(limit: int, workers: int) -> None:
    shares = [worker_share(limit, workers, number) for number in range(workers)]
    assert sum(shares) == limit
    assert max(shares) - min(shares) <= 1


@given(st.integers(1, 10000), st.integers(1, 64))
def test_no_worker_without_a_share(maxproc: int, cores: int) -> None:
    """A share of 0 would mean: no limit."""
    workers = workers_for(maxproc, cores, 0)
    assert all(worker_share(maxproc, workers, number) >= 1 for number in range(workers))


@pytest.mark.parametrize(
    ("available", "busy", "now", "expected"),
    [
        (set(), set(), 100.0, True),  # nobody yet: the next client starts one
        ({1}, set(), 100.0, False),
        ({1}, {2}, 100.0, False),
        (set(), {1}, 100.0, True),  # busy: a second one may help
        (set(), {1, 2}, 100.0, False),  # no more may be started
        (set(), set(), 49.0, False),  # throttled
        (set(), set(), 50.0, True),  # no longer
    ],
)
def test_listening(available: set[int], busy: set[int], now: float, expected: bool) -> None:
    state = ServiceState(2, 100, available, busy, throttled_until=50.0)
    assert wants_listening(state, now) is expected
    assert state.workers == len(available) + len(busy)

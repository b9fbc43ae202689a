"""The concurrency window beside the examples of SCHEDULER_README."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.daemons.qmgr.feedback import BadFeedback, Feedback, Window


def window(size: int = 5, limit: int = 20, positive: str = "1", negative: str = "1", cohort: int = 1) -> Window:
    return Window(size, limit, size, Feedback.parse(positive), Feedback.parse(negative), cohort)


@pytest.mark.parametrize(
    ("text", "at4"),
    [("1", 1.0), ("0.25", 0.25), ("1/concurrency", 0.25), ("1/sqrt_concurrency", 0.5), (" .5 / concurrency ", 0.125), ("0", 0.0)],
)
def test_expressions(text: str, at4: float) -> None:
    assert Feedback.parse(text).at(4) == at4


@given(st.text(max_size=20))
def test_an_expression_parses_or_is_refused(text: str) -> None:
    try:
        assert Feedback.parse(text).at(1) >= 0
    except BadFeedback:
        pass


def busy_successes(w: Window, count: int) -> list[int]:
    sizes = []
    for _ in range(count):
        w.succeeded(max(0, w.size - 1))
        sizes.append(w.size)
    return sizes


def test_one_success_opens_by_one_with_feedback_one() -> None:
    assert busy_successes(window(), 4) == [6, 7, 8, 9]


@pytest.mark.parametrize("size", [3, 5, 10, 7])
def test_positive_feedback_acts_at_the_end_of_its_sequence(size: int) -> None:
    """1/N: N successes open the window by one, the last of them does it."""
    assert busy_successes(window(size, positive="1/concurrency"), size) == [size] * (size - 1) + [size + 1]


@pytest.mark.parametrize("size", [3, 5, 10, 7])
def test_negative_feedback_acts_at_the_beginning(size: int) -> None:
    """1/N: the first failure of a sequence closes the window by one; the rest of the sequence costs nothing more."""
    w = window(size, negative="1/concurrency", cohort=1000)
    w.failed()
    assert w.size == size - 1
    for _ in range(size - 2):
        w.failed()
    assert w.size == size - 1


def test_the_window_stops_at_its_limit() -> None:
    w = window(19, limit=20)
    assert busy_successes(w, 5)[-1] == 20


def test_no_limit() -> None:
    w = window(19, limit=0)
    assert busy_successes(w, 50)[-1] == 69


def test_an_unused_window_does_not_open() -> None:
    w = window(5)
    for _ in range(100):
        w.succeeded(0)
    assert w.size == 6  # concurrency < busy + initial: 5 < 1 + 5, then 6 is not


def test_never_below_one() -> None:
    w = window(2, cohort=0)
    for _ in range(10):
        assert not w.failed()
    assert w.size == 1


@pytest.mark.parametrize(
    ("size", "negative", "cohort", "failures"), [(5, "0", 1, 5), (5, "0", 3, 15), (1, "1", 1, 1), (10, "0", 1, 10)]
)
def test_dead_after_so_many_failed_cohorts(size: int, negative: str, cohort: int, failures: int) -> None:
    w = window(size, negative=negative, cohort=cohort)
    assert [w.failed() for _ in range(failures)] == [False] * (failures - 1) + [True]
    assert w.size == 0


def test_a_success_forgets_failed_cohorts() -> None:
    w = window(2, negative="0")
    w.failed()
    w.succeeded(1)
    assert not w.failed()


def test_revived_with_the_initial_concurrency() -> None:
    w = window(3, negative="0")
    while not w.failed():
        pass
    assert w.failed(), "dead stays dead"
    w.revive()
    assert w.size == 3
    assert not w.failed()


@given(
    st.lists(st.booleans(), max_size=200),
    st.sampled_from(["0", "0.3", "1", "1/concurrency", "1/sqrt_concurrency"]),
    st.sampled_from(["0", "0.3", "1", "1/concurrency", "1/sqrt_concurrency"]),
    st.integers(1, 30),
    st.integers(0, 3),
)
def test_the_window_stays_in_its_bounds(events: list[bool], positive: str, negative: str, limit: int, cohort: int) -> None:
    w = window(min(5, limit), limit, positive, negative, cohort)
    for good in events:
        before = w.size
        if good:
            w.succeeded(w.size)
            assert w.size >= before
        else:
            dead = w.failed()
            assert dead == (w.size == 0)
            assert w.size <= before
        assert 0 <= w.size <= limit
        if w.size == 0:
            w.revive()

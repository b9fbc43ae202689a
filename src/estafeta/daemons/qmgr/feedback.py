"""Concurrency feedback: how many deliveries go to one destination at a time. Pure.

Source: SCHEDULER_README, postconf(5) default_destination_concurrency_{positive,negative}_feedback, _failed_cohort_limit,
initial_destination_concurrency. Feedback is a number, ``number/concurrency`` or ``number/sqrt_concurrency``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_SPEC = re.compile(r"\s*([0-9.]+)\s*(?:/\s*(concurrency|sqrt_concurrency))?\s*")

_ROUNDING = 1e-9  # ten times a tenth must count as one


class BadFeedback(ValueError):
    """Not a feedback expression."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """One feedback expression."""

    amount: float
    divisor: str = ""

    @staticmethod
    def parse(text: str) -> Feedback:
        found = _SPEC.fullmatch(text)
        if found is None:
            raise BadFeedback(text)
        try:
            return Feedback(float(found[1]), found[2] or "")
        except ValueError:
            raise BadFeedback(text) from None

    def at(self, concurrency: int) -> float:
        """The feedback of one delivery at this concurrency."""
        if self.divisor == "concurrency":
            return self.amount / max(1, concurrency)
        if self.divisor == "sqrt_concurrency":
            return self.amount / math.sqrt(max(1, concurrency))
        return self.amount


@dataclass(slots=True)
class Window:
    """The concurrency window of one destination. ``limit`` 0: none. A window of 0 means: dead."""

    size: int
    limit: int
    initial: int
    positive: Feedback
    negative: Feedback
    cohort_limit: int
    _success: float = 0.0
    _failure: float = 0.0
    _failed_cohorts: float = 0.0

    def succeeded(self, in_flight: int) -> None:
        """A delivery reached the destination; ``in_flight`` others are under way."""
        self._failed_cohorts = 0.0
        if self.size == 0:
            self.size = self.initial
        if self.limit and self.size >= self.limit:
            return
        if self.size >= in_flight + 1 + self.initial:
            return  # the window is not used up: opening it further would only delay the effect of failures
        self._success += self.positive.at(self.size)
        while self._success >= 1.0 - _ROUNDING:
            self.size += 1
            self._failure = 0.0
            self._success -= 1.0
            if self.limit and self.size >= self.limit:
                self._success = 0.0
                return

    def failed(self) -> bool:
        """A delivery did not reach the destination; True if the destination is now dead."""
        if self.size == 0:
            return True
        if self.cohort_limit:
            self._failed_cohorts += 1.0 / self.size
            if self._failed_cohorts >= self.cohort_limit - _ROUNDING:
                self.size = 0
                return True
        self._failure -= self.negative.at(self.size)
        while self._failure < -_ROUNDING:
            self._failure += 1.0
            self._success = 0.0
            self.size = max(1, self.size - 1)
        return False

    def revive(self) -> None:
        """Try a dead destination again."""
        if self.size == 0:
            self.size = self.initial
            self._success = self._failure = self._failed_cohorts = 0.0

"""Drive a coroutine that never has to wait to its end on the spot, without a task.

Look-ups and rewrites are ``async`` because some tables wait for a network. Most do not. This module lets callers
pay for a task only when a coroutine really suspends.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Done(Generic[T]):
    """The value of a coroutine that finished without waiting."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


class WouldWait(RuntimeError):
    """A coroutine suspended where only immediate ones are allowed."""


def run_now(coro: Coroutine[Any, Any, T]) -> T:
    """Run ``coro`` to its end and return its value; raise WouldWait if it suspends."""
    try:
        coro.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    coro.close()
    raise WouldWait("this look-up has to wait")

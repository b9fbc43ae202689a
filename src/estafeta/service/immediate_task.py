"""Drive a coroutine on the spot, and only if it has to wait go on with it as a task.

A task costs several microseconds and a turn of the loop; most look-ups never wait. The first awaited future is handed to the
task through a small adapter, so nothing is run twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any

_waiting: set[asyncio.Task[None]] = set()


class _Resume:
    """Awaitable that goes on with a coroutine that has already yielded ``first``."""

    __slots__ = ("_coro", "_first")

    def __init__(self, coro: Coroutine[Any, Any, None], first: Any) -> None:
        self._coro = coro
        self._first = first

    def __await__(self) -> Generator[Any, Any, None]:
        pending = self._first
        while True:
            try:
                value = yield pending
            except BaseException as error:  # noqa: BLE001 - cancellation and all else belong to the coroutine
                try:
                    pending = self._coro.throw(error)
                except StopIteration:
                    return
            else:
                try:
                    pending = self._coro.send(value)
                except StopIteration:
                    return


async def _go_on(coro: Coroutine[Any, Any, None], first: Any) -> None:
    await _Resume(coro, first)


def run_or_task(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Run ``coro`` now; None if it has ended, else the task that waits for the rest of it."""
    try:
        first = coro.send(None)
    except StopIteration:
        return None
    task = loop.create_task(_go_on(coro, first))
    _waiting.add(task)
    task.add_done_callback(_waiting.discard)
    return task

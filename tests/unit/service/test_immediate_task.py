"""Coroutines driven on the spot: what is run, when, and what becomes of exceptions and cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from estafeta.service.immediate_task import run_or_task


def test_what_never_waits_is_done_at_once() -> None:
    done = []

    async def work() -> None:
        done.append(1)

    async def run() -> None:
        assert run_or_task(asyncio.get_running_loop(), work()) is None
        assert done == [1]

    asyncio.run(run())


def test_what_waits_goes_on_as_a_task() -> None:
    steps: list[Any] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()

        async def work() -> None:
            steps.append("start")
            steps.append(await future)
            await asyncio.sleep(0)
            async with asyncio.timeout(5):  # in a task by now
                await asyncio.sleep(0.001)
            steps.append("end")

        task = run_or_task(loop, work())
        assert task is not None and steps == ["start"]
        future.set_result(7)
        await task
        assert steps == ["start", 7, "end"]

    asyncio.run(run())


def test_a_bare_yield_comes_first() -> None:
    async def run() -> None:
        steps = []

        async def work() -> None:
            steps.append(1)
            await asyncio.sleep(0)
            steps.append(2)

        task = run_or_task(asyncio.get_running_loop(), work())
        assert task is not None and steps == [1]
        await task
        assert steps == [1, 2]

    asyncio.run(run())


def test_exceptions() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()

        async def at_once() -> None:
            raise KeyError("now")

        with pytest.raises(KeyError, match="now"):
            run_or_task(loop, at_once())

        async def later() -> None:
            await asyncio.sleep(0)
            raise KeyError("later")

        task = run_or_task(loop, later())
        assert task is not None
        with pytest.raises(KeyError, match="later"):
            await task

        future: asyncio.Future[None] = loop.create_future()
        seen: list[BaseException] = []

        async def handles() -> None:
            try:
                await future
            except ValueError as error:
                seen.append(error)
            await asyncio.sleep(0)
            seen.append(RuntimeError("went on"))

        task = run_or_task(loop, handles())
        assert task is not None
        future.set_exception(ValueError("from the future"))
        await task
        assert [str(error) for error in seen] == ["from the future", "went on"]

    asyncio.run(run())


def test_cancellation_reaches_the_coroutine() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        steps: list[str] = []

        async def work(future: asyncio.Future[None]) -> None:
            try:
                await future
            except asyncio.CancelledError:
                steps.append("cancelled")
                raise
            finally:
                steps.append("cleaned up")

        future: asyncio.Future[None] = loop.create_future()
        task = run_or_task(loop, work(future))
        assert task is not None
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps == ["cancelled", "cleaned up"]
        assert future.cancelled()

    asyncio.run(run())


def test_many_at_once_come_back_in_order() -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[int]] = [loop.create_future() for _ in range(50)]
        got: list[int] = []

        async def work(future: asyncio.Future[int]) -> None:
            got.append(await future)

        tasks = [run_or_task(loop, work(future)) for future in futures]
        for number, future in enumerate(futures):
            future.set_result(number)
        await asyncio.gather(*(task for task in tasks if task is not None))
        assert got == list(range(50))

    asyncio.run(run())

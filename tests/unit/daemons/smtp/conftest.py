"""The fixture that runs a test with an smtp(8) worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from estafeta.service.worker import new_event_loop
from support.smtp_agent import Agent


@pytest.fixture
def drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run ``test(agent)`` on a loop of its own; fails on anything that the loop did not expect."""
    monkeypatch.chdir(tmp_path)

    def run(test: Callable[[Agent], Awaitable[None]], **options: str) -> None:
        problems: list[dict[str, Any]] = []

        async def whole() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: problems.append(context))
            agent = Agent(tmp_path, **options)  # type: ignore[arg-type]
            await agent.smtp.start()
            try:
                await test(agent)
            finally:
                await agent.smtp.stop()
                await asyncio.sleep(0)
            assert not agent.smtp.sessions
            assert not [line for line in agent.lines if "unexpected" in line]

        loop = new_event_loop()
        try:
            loop.run_until_complete(asyncio.wait_for(whole(), 30))
        finally:
            loop.close()
        assert problems == []

    return run

"""Tests written as scenes: a coroutine that gets a running queue manager (``support.queue_manager.Stage``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from support.queue_manager import Stage

Scene = Callable[[Stage], Coroutine[Any, Any, None]]


def on_stage(**parameters: str) -> Callable[[Scene], Callable[[Path], None]]:
    """Make a test of a scene; ``parameters`` are main.cf settings."""

    def wrap(scene: Scene) -> Callable[[Path], None]:
        def test(tmp_path: Path) -> None:
            async def run() -> None:
                async with Stage(tmp_path, **parameters) as stage:
                    await scene(stage)

            asyncio.run(run())

        test.__name__, test.__doc__ = scene.__name__, scene.__doc__
        return test

    return wrap

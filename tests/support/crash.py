"""Kill a process at every system call of a piece of work: the systematic half of "kill -9 at every step".

``at_every_step`` runs ``work`` again and again in a forked child that ends abruptly (``os._exit``, no clean-up, like kill -9)
right before its n-th call of a function that changes files, for n = 1, 2, ... until the work gets through. After each death
``check`` looks at what is left.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Any

_CALLS = ("write", "writev", "pwrite", "fsync", "fdatasync", "rename", "unlink", "open", "ftruncate", "copy_file_range",
          "utime", "link", "mkdir", "rmdir")  # fmt: skip
KILLED = 99


def at_every_step(prepare: Callable[[], Any], work: Callable[[Any], None], check: Callable[[Any, bool], None]) -> int:
    """``check(state, finished)`` after each run; the number of steps at which the work was killed."""
    step = 0
    while True:
        step += 1
        state = prepare()
        pid = os.fork()
        if pid == 0:
            _die_at(step)
            status = 1
            try:
                work(state)
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, KILLED), f"the work failed at step {step}"
        check(state, code == 0)
        if code == 0:
            return step - 1
        assert step < 1000


def _die_at(step: int) -> None:
    count = 0

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == step:
                os._exit(KILLED)
            return function(*arguments, **options)

        return counted

    for name in _CALLS:
        setattr(os, name, wrap(getattr(os, name)))
    fcntl.flock = wrap(fcntl.flock)  # type: ignore[assignment]

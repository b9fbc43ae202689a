"""Acting as another user in the calling thread only: raw system calls, because the C library changes every thread at once.

Source: credentials(7) and nptl(7): Linux keeps credentials per thread; the setuid family of the C library interrupts all other
threads to change them as well, which would wait for a thread that sits in fsync, and would lend the rights of one delivery to
all others. ``os.seteuid`` is therefore no use in a process with helper threads.

Only effective ids change (so quotas and permissions hold as for the user), real and saved ids stay root's, which is what allows
the way back. Files that are open keep working. Without root nothing changes: everything belongs to the caller.
Invariant: the block contains no ``await``; a test reads all of the source for that. If root cannot be taken back the process
ends at once, because it must not go on as somebody else.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

_KEEP = -1
# setgroups, setresuid, setresgid
_NUMBERS = {"x86_64": (116, 117, 119), "aarch64": (159, 147, 149), "riscv64": (159, 147, 149)}


@lru_cache(maxsize=1)
def _syscalls() -> tuple[Any, tuple[int, int, int] | None]:
    return ctypes.CDLL(None, use_errno=True).syscall, _NUMBERS.get(platform.machine())


def _set_groups(groups: list[int]) -> None:
    call, numbers = _syscalls()
    if numbers is None:
        os.setgroups(groups)
        return
    array = (ctypes.c_uint32 * max(1, len(groups)))(*groups)
    _check(call(ctypes.c_long(numbers[0]), ctypes.c_long(len(groups)), array))


def _set_effective(which: int, number: int) -> None:
    """``which``: 1 user, 2 group."""
    call, numbers = _syscalls()
    if numbers is None:
        (os.seteuid if which == 1 else os.setegid)(number)
        return
    _check(
        call(ctypes.c_long(numbers[which]), ctypes.c_long(_KEEP), ctypes.c_long(number), ctypes.c_long(_KEEP))
    )


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@contextmanager
def act_as(uid: int, gid: int) -> Iterator[None]:
    """Act as ``uid``/``gid`` without supplementary groups; the block must not await. Raises OSError if that is impossible."""
    if os.geteuid() != 0 or (uid == 0 and gid == 0):
        yield
        return
    groups = os.getgroups()
    try:
        _set_groups([gid])
        _set_effective(2, gid)
        _set_effective(1, uid)
        yield
    finally:
        try:
            _set_effective(1, 0)
            _set_effective(2, 0)
            _set_groups(groups)
        except OSError:
            os.abort()

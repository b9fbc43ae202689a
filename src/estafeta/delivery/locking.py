"""Locks on mailbox files: fcntl, flock, dotlock.

Source: postconf(5) mailbox_delivery_lock, virtual_mailbox_lock, deliver_lock_attempts, deliver_lock_delay, stale_lock_time.
Nothing here waits: ``try_lock`` succeeds, or raises Busy and the caller comes again after deliver_lock_delay. Invariant: after
an exception no lock is held.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from dataclasses import dataclass

from estafeta.config.config import Config

METHODS = ("fcntl", "flock", "dotlock")


class Busy(Exception):
    """Somebody else has the lock."""


@dataclass(frozen=True, slots=True)
class LockPolicy:
    """How to lock: methods, how often to try, the pause between, the age from which a dot lock is stale (seconds)."""

    methods: tuple[str, ...] = ("fcntl", "dotlock")
    attempts: int = 20
    delay_s: float = 1.0
    stale_s: float = 500.0


def parse_methods(words: list[str]) -> tuple[str, ...]:
    """The methods of a parameter; raises ValueError with the first unknown one."""
    for word in words:
        if word not in METHODS:
            raise ValueError(f"unknown lock method: {word}")
    return tuple(dict.fromkeys(words))


def lock_policy(config: Config, methods: tuple[str, ...]) -> LockPolicy:
    """``methods`` with what main.cf says of attempts and stale locks."""
    return LockPolicy(
        methods,
        config.int("deliver_lock_attempts"),
        config.seconds("deliver_lock_delay"),
        config.seconds("stale_lock_time"),
    )


def lock_file(fd: int, methods: tuple[str, ...]) -> None:
    """The kernel locks among ``methods``; raises Busy or OSError. They end when ``fd`` is closed."""
    try:
        if "flock" in methods:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if "fcntl" in methods:
            # A lock of the open file, not of the process: it holds against our own other deliveries, too.
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):
        raise Busy from None


def take_dot_lock(path: str, stale_s: float) -> str:
    """Create ``path.lock``; its name. Raises Busy or OSError. A stale one is removed, and Busy raised for the next try."""
    lock = path + ".lock"
    try:
        os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
    except FileExistsError:
        try:
            if time.time() - os.lstat(lock).st_mtime > stale_s:
                os.unlink(lock)
        except FileNotFoundError:
            pass
        raise Busy from None
    return lock


def drop_dot_lock(lock: str) -> None:
    """Remove a lock that ``take_dot_lock`` made."""
    try:
        os.unlink(lock)
    except OSError:
        pass

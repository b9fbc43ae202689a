"""Appending to a mailbox file: locks, ownership, size limit, "From " line, quoting; cut back when it fails half-way.

Source: local(8) MAILBOX DELIVERY and EXTERNAL FILE DELIVERY, virtual(8) UNIX MAILBOX FORMAT, mbox(5).
Invariants: success is reported after fsync; after any failure the file is as long as before; never followed: a symbolic link
that is the mailbox itself, a hard link with another name, a file of somebody else (strict_mailbox_ownership). Nothing here
blocks the loop except for short writes; taken locks are tried again after deliver_lock_delay.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from estafeta.delivery.locking import Busy, LockPolicy, drop_dot_lock, lock_file, take_dot_lock
from estafeta.delivery.maildir import write_buffers
from estafeta.mail.address import quote_address
from estafeta.system.thread_identity import act_as

__all__ = ["Busy", "MboxError", "MboxJob", "MboxWriter", "from_line", "quote_from"]

_FROM = re.compile(rb"^From ", re.MULTILINE)


class MboxError(Exception):
    """Not delivered: enhanced status and text; class 5 is for good."""

    def __init__(self, dsn: str, text: str) -> None:
        super().__init__(text)
        self.dsn = dsn
        self.text = text


@dataclass(frozen=True, slots=True)
class MboxJob:
    """One delivery. ``owner``: the uid that a regular file must have (None: any). ``limit``: file size, bytes; 0: none."""

    path: str
    head: bytes
    limit: int
    owner: int | None
    lock: LockPolicy
    special_files: bool = False  # /dev/null and pipes are allowed (aliases, .forward)
    failing: str = ""  # how the text of a failure begins; without: that of virtual(8)

    def failure(self, dsn: str, reason: str) -> MboxError:
        """What is said of a delivery that failed for ``reason``."""
        return MboxError(dsn, (self.failing or f"delivery failed to mailbox {self.path}: ") + reason)


def from_line(sender: bytes, when: float) -> bytes:
    """``From sender  Sun Nov 22 16:02:47 2026``, local time."""
    stamp = time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(when))
    return b"From %s  %s\n" % (quote_address(sender) or b"MAILER-DAEMON", stamp.encode())


def quote_from(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Put ``>`` in front of lines that start with "From "; pieces may be cut anywhere."""
    held = b""  # the beginning of a line, too short to tell
    at_line_start = True
    for piece in pieces:
        data = held + piece
        held = b""
        cut = data.rfind(b"\n") + 1
        tail = data[cut:]
        ends_at_start = (cut > 0 or at_line_start) and b"From ".startswith(tail) and len(tail) < 5
        if ends_at_start:
            held = tail
            data = data[:cut]
        if b"From " in data:
            data = _FROM.sub(b">From ", data) if at_line_start else _FROM.sub(b">From ", b"x" + data)[1:]
        if data:
            yield data
        at_line_start = ends_at_start
    if held:
        yield held


@dataclass(slots=True)
class _Open:
    fd: int
    size: int
    regular: bool
    dot_lock: str


class MboxWriter:
    """Appends; deliveries of this process to the same file wait for one another here, in order, not at the file's lock."""

    def __init__(self) -> None:
        self._under_way: dict[str, tuple[asyncio.Lock, list[None]]] = {}

    async def append(self, job: MboxJob, body: Iterable[bytes], uid: int, gid: int) -> None:
        """Append one message as ``uid``/``gid``; raises MboxError. Waits for locks and the disk without holding up others."""
        lock, users = self._under_way.setdefault(job.path, (asyncio.Lock(), []))
        users.append(None)
        try:
            async with lock:
                await _append(job, body, uid, gid)
        finally:
            users.pop()
            if not users:
                del self._under_way[job.path]


async def _append(job: MboxJob, body: Iterable[bytes], uid: int, gid: int) -> None:
    loop = asyncio.get_running_loop()
    policy = job.lock
    for attempt in range(policy.attempts):
        if attempt:
            await asyncio.sleep(policy.delay_s)
        try:
            with act_as(uid, gid):
                opened = _begin(job, body)
            break
        except Busy:
            continue
        except OSError as error:
            raise _failure(error, job) from None
    else:
        text = f"unable to lock for exclusive access: {os.strerror(errno.EAGAIN)}"
        raise job.failure("4.2.0", text)
    try:
        if opened.regular:
            await loop.run_in_executor(None, os.fsync, opened.fd)
    except BaseException as error:
        _cut_back(opened)
        if isinstance(error, OSError):
            raise _failure(error, job) from None
        raise
    finally:
        with act_as(uid, gid):
            _end(opened)


def _failure(error: OSError, job: MboxJob) -> MboxError:
    dsn = "4.2.0"
    if error.errno in (errno.EDQUOT, errno.EFBIG):
        dsn = "5.2.2"
    elif error.errno == errno.ENOSPC:
        dsn = "4.3.0"
    if str(error.filename or "").endswith(".lock"):
        what = f"unable to create lock file {error.filename}"
    elif error.filename:
        what = "cannot open file"
    else:
        what = "error writing message"
    return job.failure(dsn, f"{what}: {os.strerror(error.errno or 0)}")


def _begin(job: MboxJob, body: Iterable[bytes]) -> _Open:
    """Open, lock, check and write; raises Busy, MboxError or OSError with everything undone."""
    policy = job.lock
    dot_lock = take_dot_lock(job.path, policy.stale_s) if _needs_dot_lock(job) else ""
    fd = -1
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_CREAT
        if not job.special_files:
            flags |= os.O_NOFOLLOW
        fd = os.open(job.path, flags, 0o600)
        opened = _checked(job, fd, dot_lock)
        if opened.regular:
            lock_file(fd, policy.methods)
            opened.size = os.fstat(fd).st_size
    except BaseException:
        if fd >= 0:
            os.close(fd)
        if dot_lock:
            drop_dot_lock(dot_lock)
        raise
    try:
        _write(job, opened, body)
    except BaseException:
        _cut_back(opened)
        _end(opened)
        raise
    return opened


def _needs_dot_lock(job: MboxJob) -> bool:
    if "dotlock" not in job.lock.methods:
        return False
    try:
        return not job.special_files or stat.S_ISREG(os.stat(job.path).st_mode)
    except OSError:
        return True


def _checked(job: MboxJob, fd: int, dot_lock: str) -> _Open:
    status = os.fstat(fd)
    regular = stat.S_ISREG(status.st_mode)
    if not regular:
        if not job.special_files:
            raise MboxError("5.2.0", f"destination {job.path} is not a regular file")
        os.set_blocking(fd, True)
        return _Open(fd, 0, False, dot_lock)
    if job.owner is not None and status.st_uid != job.owner:
        raise MboxError("4.2.0", f"destination {job.path} is not owned by recipient")
    if status.st_nlink > 1 and not job.special_files:
        raise MboxError("5.2.0", f"destination {job.path} has {status.st_nlink} hard links")
    if status.st_mode & 0o111:
        raise MboxError("5.2.0", f"destination file {job.path} is executable")
    return _Open(fd, status.st_size, True, dot_lock)


def _write(job: MboxJob, opened: _Open, body: Iterable[bytes]) -> None:
    buffers = [job.head, *quote_from(body), b"\n"]
    if opened.regular and job.limit and opened.size + sum(map(len, buffers)) > job.limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    write_buffers(opened.fd, buffers)


def _cut_back(opened: _Open) -> None:
    if opened.regular:
        try:
            os.ftruncate(opened.fd, opened.size)
        except OSError:
            pass


def _end(opened: _Open) -> None:
    os.close(opened.fd)
    if opened.dot_lock:
        drop_dot_lock(opened.dot_lock)

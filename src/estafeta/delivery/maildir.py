"""Maildir delivery with group commit: messages are written as they come and made safe together.

Source: maildir(5); the file names are Postfix's: ``<time>.V<device>I<inode>M<microseconds>.<host>``.

How it works. A message is written to a nameless file (O_TMPFILE) in ``new/``; where the file system has none, to a file in
``tmp/``. One helper thread makes the data of all messages of a batch durable; what comes in meanwhile is written already and
forms the next batch. Then each file gets its name in ``new/`` and its caller is told. Writing and naming is done by the event
loop itself, as the mailbox's owner (system.thread_identity): it is a matter of microseconds in the page cache, and a thread
would fight with the loop for the interpreter over every one of these short calls. Only waiting for the disk is left to the
thread, which needs no rights, only descriptors.

How a batch is synced (ext4, two cores, messages a second): alone fdatasync; from two on, writing is started for all before the
first fdatasync waits (8,000 instead of 5,000); from ``SYNCFS_FROM`` on one syncfs for each file system (up to 14,000). A syncfs
also writes what strangers have left dirty, so it is not used for less.

Invariants: a callback without an error comes after the data is on disk and the file has its name; after an error no file of
that message is left. The name itself becomes durable with the file system's next journal commit, as in Postfix.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from queue import SimpleQueue
from threading import Thread
from typing import Any

from estafeta.system.thread_identity import act_as

SYNCFS_FROM = 9
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
_NO_TMPFILE = frozenset((errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOSYS))
_START_WRITE = 2  # SYNC_FILE_RANGE_WRITE

Done = Callable[[OSError | None], None]


@dataclass(slots=True)
class MaildirMessage:
    """One message for one maildir; ``directory`` ends in a slash."""

    directory: str
    uid: int
    gid: int
    head: bytes
    body: Iterable[bytes]
    done: Done
    fd: int = -1
    temporary: str = ""  # empty: the file has no name yet
    name: str = ""
    device: int = 0
    error: OSError | None = None

    @property
    def owner(self) -> tuple[int, int]:
        """User and group to act as."""
        return self.uid, self.gid


class MaildirWriter:
    """See the module. ``soon`` and ``post`` are ``loop.call_soon`` and ``loop.call_soon_threadsafe``."""

    def __init__(self, hostname: str, soon: Callable[..., object], post: Callable[..., object]) -> None:
        # A slash or a colon in a host name would break the name apart.
        self._hostname = hostname.replace("/", "\\057").replace(":", "\\072")
        self._soon = soon
        self._post = post
        self._unwritten: list[MaildirMessage] = []
        self._written: list[MaildirMessage] = []
        self._syncing = False
        self._scheduled = False
        self._serial = 0
        self._jobs: SimpleQueue[list[MaildirMessage] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="maildir", daemon=True)
        self._thread.start()

    def add(self, message: MaildirMessage) -> None:
        """Deliver ``message``; its ``done`` is called later, on the loop."""
        self._unwritten.append(message)
        if not self._scheduled:
            self._scheduled = True
            self._soon(self._write_all)

    def close(self) -> None:
        """End the thread; what is under way is left to be delivered again."""
        self._jobs.put(None)
        self._thread.join()

    # -- on the loop --------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        self._scheduled = False
        messages, self._unwritten = self._unwritten, []
        failed = [message for message in self._as_owners(messages, self._write) if message.error is not None]
        self._written += [message for message in messages if message.error is None]
        if self._written and not self._syncing:
            self._sync_next()
        for message in failed:
            message.done(message.error)

    def _sync_next(self) -> None:
        batch, self._written = self._written, []
        self._syncing = True
        self._jobs.put(batch)

    def _synced(self, batch: list[MaildirMessage]) -> None:
        self._syncing = False
        if self._written:
            self._sync_next()
        for message in self._as_owners(batch, self._name):
            message.done(message.error)

    def _as_owners(
        self, messages: list[MaildirMessage], work: Callable[[MaildirMessage], None]
    ) -> list[MaildirMessage]:
        """Run ``work`` on every message as its owner, with one change of identity an owner."""
        owners: dict[tuple[int, int], list[MaildirMessage]] = {}
        for message in messages:
            owners.setdefault(message.owner, []).append(message)
        for (uid, gid), group in owners.items():
            try:
                with act_as(uid, gid):
                    for message in group:
                        try:
                            work(message)
                        except OSError as error:
                            self._drop(message, error)
            except OSError as error:
                for message in group:
                    self._drop(message, error)
        return messages

    def _drop(self, message: MaildirMessage, error: OSError) -> None:
        message.error = message.error or error
        if message.fd >= 0:
            os.close(message.fd)
            message.fd = -1
        if message.temporary:
            try:
                os.unlink(message.temporary)
            except OSError:
                pass
            message.temporary = ""

    def _write(self, message: MaildirMessage) -> None:
        try:
            self._open(message)
        except FileNotFoundError:
            make_maildir(message.directory)
            self._open(message)
        buffers = [message.head, *message.body]
        write_buffers(message.fd, buffers)
        status = os.fstat(message.fd)
        message.device = status.st_dev
        now = time.time_ns()
        message.name = (
            f"{message.directory}new/{now // 1_000_000_000}.V{status.st_dev:x}I{status.st_ino:x}"
            f"M{now // 1000 % 1_000_000}.{self._hostname}"
        )

    def _open(self, message: MaildirMessage) -> None:
        try:
            message.fd = os.open(message.directory + "new", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, FILE_MODE)
            return
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
        self._serial += 1
        path = f"{message.directory}tmp/{time.time_ns() // 1000}.P{os.getpid()}Q{self._serial}.{self._hostname}"
        message.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        message.temporary = path

    def _name(self, message: MaildirMessage) -> None:
        if message.error is not None:
            raise message.error
        if message.temporary:
            os.rename(message.temporary, message.name)
            message.temporary = ""
        else:
            # A directory descriptor makes Python use linkat, which follows the link in /proc to the nameless file.
            os.link(f"/proc/self/fd/{message.fd}", message.name, src_dir_fd=message.fd)
        os.close(message.fd)
        message.fd = -1

    # -- in the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._jobs.get()) is not None:
            sync_batch(batch)
            try:
                self._post(self._synced, batch)
            except RuntimeError:
                return  # the loop has ended


def make_maildir(directory: str) -> None:
    """Create a maildir and what is missing above it; raises OSError."""
    for part in ("cur", "new", "tmp"):
        _make_directories(directory + part)


def _make_directories(path: str) -> None:
    # os.makedirs would make the directories above world-readable.
    try:
        os.mkdir(path, DIRECTORY_MODE)
    except FileExistsError:
        pass
    except FileNotFoundError:
        parent = os.path.dirname(path.rstrip("/"))
        if parent in ("", path):
            raise
        _make_directories(parent)
        _make_directories(path)


def write_buffers(fd: int, buffers: list[bytes]) -> None:
    """Write everything; raises OSError."""
    for at in range(0, len(buffers), 1000):
        some = buffers[at : at + 1000]
        total = sum(map(len, some))
        written = os.writev(fd, some)
        if written < total:
            rest = memoryview(b"".join(some))[written:]
            while rest:
                step = os.write(fd, rest)
                if step == 0:
                    raise OSError(errno.EIO, "short write")
                rest = rest[step:]


@lru_cache(maxsize=1)
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def sync_batch(batch: list[MaildirMessage]) -> None:
    """Make the data of all files durable; a failure is kept in the message's ``error``."""
    if len(batch) >= SYNCFS_FROM:
        by_device: dict[int, list[MaildirMessage]] = {}
        for message in batch:
            by_device.setdefault(message.device, []).append(message)
        batch = []
        for group in by_device.values():
            if len(group) < SYNCFS_FROM or _libc().syncfs(group[0].fd) != 0:
                batch += group
    if len(batch) > 1:
        # Any failure here shows again in fdatasync.
        start = _libc().sync_file_range
        for message in batch:
            start(message.fd, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(_START_WRITE))
    for message in batch:
        try:
            os.fdatasync(message.fd)
        except OSError as error:
            message.error = error

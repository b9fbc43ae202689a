"""The writing side of the spool: segments with group commit, and large messages in files of their own.

One helper thread per worker writes and syncs; messages that arrive while a commit is under way form the next batch, so the
thread is woken once a batch and never once a message.

Invariants: a callback says "safe" only after fdatasync of the data and of the directory entry; the writer of a segment holds
an exclusive flock on it for as long as it may append, and nobody removes a segment without that lock; after any error the
segment is abandoned (what was written is cut off again where possible) and the next batch starts a new one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread
from zlib import crc32

from estafeta.ipc.messages import Envelope, Place
from estafeta.spool import layout
from estafeta.spool.record import message_head

SEGMENT_SIZE = 32 * 1024 * 1024
SEGMENT_AGE_S = 5.0
_IOV_MAX = 1000
HEAD_ROOM = 4096

Safe = Callable[[Place | None, OSError | None], None]


@dataclass(slots=True)
class _Entry:
    head: bytes
    content: bytes
    callback: Safe


@dataclass(slots=True)
class _Batch:
    entries: list[_Entry] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    error: OSError | None = None


class Segment:
    """One open segment; used by the commit thread only."""

    def __init__(self, queue_directory: str, name: str) -> None:
        self.name = "incoming/" + name
        self.path = os.path.join(queue_directory, self.name)
        # Locked before it can be seen as a segment: the owner of the queue removes empty segments that nobody has locked.
        temporary = os.path.join(queue_directory, "incoming", layout.TEMPORARY_PREFIX + name)
        self.fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = 0
        self.born = time.monotonic()
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(temporary, self.path)
            layout.sync_directory(os.path.dirname(self.path))
        except OSError:
            for path in (temporary, self.path):
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    pass
            os.close(self.fd)
            raise

    def append(self, entries: list[_Entry]) -> list[Place]:
        """Write and sync all entries or none; raises OSError."""
        places = []
        buffers: list[bytes] = []
        offset = self.size
        for entry in entries:
            content_length = len(entry.content)
            length = len(entry.head) + content_length
            places.append(Place(self.name, offset, length, offset + len(entry.head), content_length))
            buffers.append(entry.head)
            if content_length:
                buffers.append(entry.content)
            offset += length
        try:
            write_all(self.fd, buffers)
            os.fdatasync(self.fd)
        except OSError:
            try:
                os.ftruncate(self.fd, self.size)
            except OSError:
                pass
            raise
        self.size = offset
        return places

    def close(self) -> None:
        """Let go of the lock; an empty segment is removed."""
        if self.size == 0:
            try:
                os.unlink(self.path)
            except OSError:
                pass
        os.close(self.fd)


def write_all(descriptor: int, buffers: list[bytes]) -> None:
    """writev until everything is written; raises OSError."""
    for start in range(0, len(buffers), _IOV_MAX):
        part = buffers[start : start + _IOV_MAX]
        expected = sum(map(len, part))
        written = os.writev(descriptor, part)
        if written != expected:
            rest = b"".join(part)[written:]
            while rest:
                step = os.write(descriptor, rest)
                if step == 0:
                    raise OSError(errno.EIO, "short write")
                rest = rest[step:]


class Journal:
    """Accepts messages for the queue and says when they are safe.

    ``soon`` runs a function later on the caller's event loop (``loop.call_soon``), ``post`` does so from another thread
    (``loop.call_soon_threadsafe``).
    """

    def __init__(self, queue_directory: str, soon: Callable[..., object], post: Callable[..., object]) -> None:
        self._directory = queue_directory
        self._soon = soon
        self._post = post
        self._pending = _Batch()
        self._busy = False
        self._jobs: SimpleQueue[_Batch | str | None] = SimpleQueue()
        self._segment: Segment | None = None
        self._serial = 0
        self._has_data = False
        self._thread = Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    def add(self, envelope: Envelope, content: bytes, callback: Safe) -> None:
        """Queue a message for the next commit; ``callback(place, error)`` runs on the loop."""
        head = message_head(envelope, len(content), crc32(content))
        self._pending.entries.append(_Entry(head, content, callback))
        if not self._busy:
            self._busy = True
            # The rest of this loop turn still joins the batch: commit when the loop comes round.
            self._soon(self._start)

    def _start(self) -> None:
        batch, self._pending = self._pending, _Batch()
        self._jobs.put(batch)

    def rotate_if_old(self) -> None:
        """Called by a timer: an old segment is closed, so that it can be removed once its messages are gone."""
        self._jobs.put("age")

    def close(self) -> None:
        """Write what is pending and end the thread."""
        if self._pending.entries:
            self._start()
        self._jobs.put(None)
        self._thread.join()

    def _finished(self, batch: _Batch) -> None:
        if self._pending.entries:
            self._start()
        else:
            self._busy = False
        if batch.error is None:
            for entry, place in zip(batch.entries, batch.places, strict=True):
                entry.callback(place, None)
        else:
            for entry in batch.entries:
                entry.callback(None, batch.error)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                break
            if isinstance(job, str):
                self._retire(SEGMENT_AGE_S)
                continue
            try:
                job.places = self._current().append(job.entries)
            except OSError as error:
                job.error = error
                self._abandon()
            self._post(self._finished, job)
        self._retire(-1.0)

    def _current(self) -> Segment:
        segment = self._segment
        if segment is not None and segment.size >= SEGMENT_SIZE:
            self._retire(-1.0)
            segment = None
        if segment is None:
            self._serial += 1
            name = f"{layout.SEGMENT_PREFIX}{time.time_ns() // 1000:x}-{os.getpid():x}-{self._serial:x}"
            segment = self._segment = Segment(self._directory, name)
        return segment

    def _retire(self, age_s: float) -> None:
        segment = self._segment
        if segment is not None and time.monotonic() - segment.born > age_s:
            self._segment = None
            segment.close()

    def _abandon(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.close()


class LargeMessage:
    """A message that streams to a file of its own. Its calls block on the disk for as long as a write takes.

    Room for the head is kept in front of the content; an envelope that outgrows it costs one copy of the file.
    """

    def __init__(self, queue_directory: str, queue_id: str, envelope: Envelope) -> None:
        self._directory = os.path.join(queue_directory, "incoming")
        self._name = queue_id
        self._temporary = os.path.join(self._directory, layout.TEMPORARY_PREFIX + queue_id)
        self._fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._room = len(message_head(envelope, 0, 0)) + HEAD_ROOM
        self.content_length = 0
        self._crc = 0
        os.lseek(self._fd, self._room, os.SEEK_SET)

    def write(self, data: bytes) -> None:
        """Append content; raises OSError (ENOSPC ...)."""
        write_all(self._fd, [data])
        self._crc = crc32(data, self._crc)
        self.content_length += len(data)

    def commit(self, envelope: Envelope) -> Place:
        """Put the head in front, sync, rename into the queue, sync the directory; raises OSError."""
        head = message_head(envelope, self.content_length, self._crc, room=self._room)
        final = os.path.join(self._directory, self._name)
        try:
            if len(head) == self._room:
                os.pwrite(self._fd, head, 0)
                os.fsync(self._fd)
                os.rename(self._temporary, final)
            else:
                self._rewrite(head, final)
            layout.sync_directory(self._directory)
        finally:
            self.abort()
        return Place("incoming/" + self._name, 0, len(head) + self.content_length, len(head), self.content_length)

    def _rewrite(self, head: bytes, final: str) -> None:
        whole = self._temporary + ".r"
        target = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_all(target, [head])
            copy_range(self._fd, self._room, target, self.content_length)
            os.fsync(target)
            os.rename(whole, final)
        except OSError:
            os.unlink(whole)
            raise
        finally:
            os.close(target)

    def abort(self) -> None:
        """Remove the temporary file if it is still there."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            try:
                os.unlink(self._temporary)
            except OSError:
                pass


def copy_range(source: int, offset: int, target: int, length: int) -> None:
    """Append ``length`` bytes of ``source`` from ``offset`` to ``target``; raises OSError."""
    while length:
        try:
            step = os.copy_file_range(source, target, length, offset)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF):
                raise
            data = os.pread(source, min(length, 1 << 20), offset)
            step = len(data)
            write_all(target, [data])
        if step == 0:
            raise OSError(errno.EIO, "queue file is shorter than it says")
        offset += step
        length -= step

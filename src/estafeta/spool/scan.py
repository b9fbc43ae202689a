"""Reading the queue directory: recovery after a crash, and listings for showq and postsuper. Changes nothing.

Recovery checks every checksum and yields whole messages with what is known of their recipients; a stretch of bytes that is no
record is reported as Damage. A listing trusts the heads and skips contents.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from estafeta.ipc.messages import Envelope, Place
from estafeta.spool import layout
from estafeta.spool.record import (
    ALL_RECIPIENTS,
    HEAD_SIZE,
    Damage,
    DamagedRecord,
    Found,
    Kind,
    apply_state,
    iter_records,
    parse_record,
    read_done_log,
)

_HEAD_READ = 8192


@dataclass(slots=True)
class Queued:
    """A message in the queue: its envelope up to date, and the numbers of the recipients that are finished."""

    queue: str  # incoming, deferred, hold
    place: Place
    envelope: Envelope
    done: set[int] = field(default_factory=set)

    @property
    def finished(self) -> bool:
        """True if nobody is left to deliver to."""
        return ALL_RECIPIENTS in self.done or len(self.done) >= len(self.envelope.recipients)


def list_names(path: str) -> list[str]:
    """The names in a directory, sorted; none if it is not there."""
    try:
        return sorted(os.listdir(path))
    except FileNotFoundError:
        return []


def segment_names(queue_directory: str) -> list[str]:
    """The segments in ``incoming/``, oldest first, as ``Place.segment`` values."""
    return [
        "incoming/" + name
        for name in list_names(os.path.join(queue_directory, "incoming"))
        if name.startswith(layout.SEGMENT_PREFIX) and not name.endswith(layout.DONE_SUFFIX)
    ]


def own_file_names(queue_directory: str, queue: str) -> Iterator[str]:
    """Message files of a queue, as ``Place.segment`` values: ``incoming/ID``, ``hold/ID``, ``deferred/BUCKET/ID``."""
    top = os.path.join(queue_directory, queue)
    if queue == "deferred":
        for bucket in list_names(top):
            if layout.bucket_start(bucket) is not None:
                for name in list_names(os.path.join(top, bucket)):
                    if not name.startswith(layout.TEMPORARY_PREFIX):
                        yield f"deferred/{bucket}/{name}"
        return
    for name in list_names(top):
        if not name.startswith((layout.SEGMENT_PREFIX, layout.TEMPORARY_PREFIX, ".")):
            yield f"{queue}/{name}"


def read_done(queue_directory: str, segment: str) -> dict[int, set[int]]:
    """The done log of a segment."""
    try:
        with open(os.path.join(queue_directory, segment + layout.DONE_SUFFIX), "rb") as stream:
            return read_done_log(stream.read())
    except FileNotFoundError:
        return {}


def recover_file(queue_directory: str, segment: str) -> Iterator[Queued | Damage]:
    """Every whole message of a file, checked, with finished recipients; raises OSError."""
    queue = segment.partition("/")[0]
    path = os.path.join(queue_directory, segment)
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size == 0:
            return
        done = read_done(queue_directory, segment)
        with mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_READ) as view, memoryview(view) as data:
            last: Queued | None = None
            for found in iter_records(data):
                if isinstance(found, Damage):
                    yield found
                elif found.kind == Kind.STATE:
                    if last is not None and found.state is not None:
                        apply_state(last.envelope, found.state, last.done)
                elif found.envelope is not None:
                    if last is not None:
                        yield last
                    last = Queued(queue, found.place(segment), found.envelope, done.get(found.offset, set()))
            if last is not None:
                yield last


def _heads(fd: int, size: int) -> Iterator[Found]:
    offset = 0
    while offset < size:
        chunk = os.pread(fd, _HEAD_READ, offset)
        try:
            found = parse_record(chunk, 0, check_content=False)
        except DamagedRecord:
            if len(chunk) < HEAD_SIZE:
                return
            wanted = HEAD_SIZE + int.from_bytes(chunk[8:12], "big")
            if wanted <= len(chunk) or wanted > size - offset:
                return
            try:
                found = parse_record(os.pread(fd, wanted, offset), 0, check_content=False)
            except DamagedRecord:
                return
        found.offset += offset
        found.content_offset += offset
        if found.content_offset + found.content_length > size:
            return
        yield found
        offset = found.content_offset + found.content_length


def list_file(queue_directory: str, segment: str) -> list[Queued]:
    """Unfinished messages of a file by their heads alone; an unreadable or vanished file gives none."""
    queue = segment.partition("/")[0]
    found_messages: list[Queued] = []
    try:
        fd = os.open(os.path.join(queue_directory, segment), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        done = read_done(queue_directory, segment)
        for found in _heads(fd, os.fstat(fd).st_size):
            if found.kind == Kind.STATE:
                if found_messages and found.state is not None:
                    apply_state(found_messages[-1].envelope, found.state, found_messages[-1].done)
            elif found.envelope is not None:
                state = done.get(found.offset, set())
                found_messages.append(Queued(queue, found.place(segment), found.envelope, state))
    except OSError:
        pass
    finally:
        os.close(fd)
    return [queued for queued in found_messages if not queued.finished]


def list_queue(queue_directory: str, queue: str) -> Iterator[Queued]:
    """Unfinished messages of one queue (incoming, deferred, hold)."""
    if queue == "incoming":
        for segment in segment_names(queue_directory):
            yield from list_file(queue_directory, segment)
    for name in own_file_names(queue_directory, queue):
        yield from list_file(queue_directory, name)


def find_message(queue_directory: str, queue_id: str) -> Queued | None:
    """The message with this id, wherever it lies."""
    for queue in ("incoming", "hold"):
        for queued in list_file(queue_directory, f"{queue}/{queue_id}"):
            return queued
    for bucket in list_names(os.path.join(queue_directory, "deferred")):
        for queued in list_file(queue_directory, f"deferred/{bucket}/{queue_id}"):
            return queued
    for segment in segment_names(queue_directory):
        for queued in list_file(queue_directory, segment):
            if queued.envelope.queue_id == queue_id:
                return queued
    return None

"""The owner's side of the spool: the one process that finishes, defers, holds and removes messages.

Source: DESIGN section 3. The owner (the queue manager, or postsuper when it does not run) holds a lock, so there is never
more than one. Finished recipients are entries in a segment's done log, written once a loop turn; they are not synced, because
after a power failure sending twice is better than losing. Moves to a file of their own (deferred, hold) are made in batches by
``move_batch``, which blocks on the disk and so belongs in a thread.

Invariants: a segment is removed only while holding its writer's lock and only if every record in it is finished; a message is
marked done in its segment only after its own file is safe.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from estafeta.ipc.messages import Envelope, Place
from estafeta.spool import layout, scan
from estafeta.spool.journal import copy_range, write_all
from estafeta.spool.record import (
    ALL_RECIPIENTS,
    Damage,
    RecipientState,
    State,
    done_entry,
    message_head,
    state_record,
)


class SpoolBusy(Exception):
    """Another process owns the queue."""


@dataclass(slots=True)
class _SegmentState:
    known: set[int] = field(default_factory=set)  # record offsets seen so far
    covered: int = 0  # bytes of the records seen so far
    open: set[int] = field(default_factory=set)  # offsets of messages that are not finished
    pending: list[bytes] = field(default_factory=list)  # done entries to write
    done_fd: int = -1


@dataclass(slots=True)
class Move:
    """Move a message to a file of its own. ``place`` becomes the new place once it is safe; ``error`` says why not."""

    place: Place
    envelope: Envelope  # of which ``left`` recipients remain
    left: list[int]
    queue: str  # deferred or hold
    done: list[int] = field(default_factory=list)
    error: OSError | None = None
    old_place: Place | None = None
    temporary: str = ""
    final: str = ""


class QueueStore:
    """The queue, owned. Raises SpoolBusy if somebody else owns it."""

    def __init__(self, queue_directory: str) -> None:
        self.directory = queue_directory
        self._segments: dict[str, _SegmentState] = {}
        self._dirty: set[str] = set()
        self._lock = os.open(
            os.path.join(queue_directory, "active", ".owner"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SpoolBusy("the queue manager is running") from None

    def close(self) -> None:
        """Write what is pending and give the queue up."""
        self.flush()
        for state in self._segments.values():
            if state.done_fd >= 0:
                os.close(state.done_fd)
        self._segments.clear()
        os.close(self._lock)

    # -- what there is ------------------------------------------------------------------------------------------------

    def is_segment(self, place: Place) -> bool:
        """True while the message shares its file with others."""
        return place.segment.startswith("incoming/" + layout.SEGMENT_PREFIX)

    def register(self, place: Place) -> bool:
        """Note a message in a segment; False if it was known already."""
        if not self.is_segment(place):
            return True
        state = self._segments.get(place.segment)
        if state is None:
            state = self._segments[place.segment] = _SegmentState()
        if place.offset in state.known:
            return False
        state.known.add(place.offset)
        state.covered += place.length
        state.open.add(place.offset)
        return True

    def is_unfinished(self, place: Place) -> bool:
        """False if the message has gone from ``place`` since that was read."""
        if not self.is_segment(place):
            return os.path.exists(os.path.join(self.directory, place.segment))
        state = self._segments.get(place.segment)
        if state is None:
            return os.path.exists(os.path.join(self.directory, place.segment))
        return place.offset in state.open or place.offset not in state.known

    def recover_incoming(self) -> Iterator[scan.Queued | tuple[str, Damage]]:
        """Every unfinished message in ``incoming/`` that is not registered yet (the caller registers it), and damage."""
        own = {name.rpartition("/")[2] for queue in ("deferred", "hold") for name in self._own_names(queue)}
        for segment in scan.segment_names(self.directory):
            state = self._segments.setdefault(segment, _SegmentState())
            if self._size(segment) == state.covered:
                continue  # all of it is known
            live = self._is_live(segment)
            try:
                found = list(scan.recover_file(self.directory, segment))
            except OSError:
                continue
            for item in found:
                if isinstance(item, Damage):
                    if not live and item.offset not in state.known:  # a live writer may be in the middle of a record
                        yield segment, item
                    continue
                if item.place.offset in state.known:
                    continue
                if item.finished:
                    state.known.add(item.place.offset)
                    state.covered += item.place.length
                elif item.envelope.queue_id in own:  # moved, but the mark was lost in the crash
                    self.register(item.place)
                    self.finish(item.place, item.envelope, [], last=True)
                else:
                    yield item
        for name in scan.own_file_names(self.directory, "incoming"):
            try:
                found = list(scan.recover_file(self.directory, name))
            except OSError:
                continue
            for item in found:
                if isinstance(item, Damage):
                    yield name, item
                elif item.envelope.queue_id in own or item.finished:
                    self.finish(item.place, item.envelope, [], last=True)
                else:
                    yield item

    def remove_temporary(self, older_than: float) -> list[str]:
        """Remove what a crash has left half-written in the queues, if its last change is before ``older_than`` (Unix time)."""
        removed = []
        queues = ["incoming", "hold", *(f"deferred/{name}" for name in scan.list_names(os.path.join(self.directory, "deferred")))]
        for queue in queues:
            for name in scan.list_names(os.path.join(self.directory, queue)):
                path = os.path.join(self.directory, queue, name)
                try:
                    if name.startswith(layout.TEMPORARY_PREFIX) and os.stat(path).st_mtime < older_than:
                        os.unlink(path)
                        removed.append(f"{queue}/{name}")
                except OSError:
                    continue
        return removed

    def _own_names(self, queue: str) -> Iterator[str]:
        if scan.segment_names(self.directory) or any(True for _ in scan.own_file_names(self.directory, "incoming")):
            yield from scan.own_file_names(self.directory, queue)

    def _size(self, segment: str) -> int:
        try:
            return os.stat(os.path.join(self.directory, segment)).st_size
        except OSError:
            return -1

    def _is_live(self, segment: str) -> bool:
        try:
            fd = os.open(os.path.join(self.directory, segment), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def set_aside(self, name: str) -> str:
        """Move a damaged file to ``corrupt/``; returns its new path below the queue directory. Raises OSError."""
        target = "corrupt/" + name.rpartition("/")[2]
        os.rename(os.path.join(self.directory, name), os.path.join(self.directory, target))
        layout.sync_directory(os.path.join(self.directory, "corrupt"))
        return target

    def save_damage(self, segment: str, damage: Damage) -> str:
        """Copy a damaged stretch of a segment to ``corrupt/``, where an administrator can look at it."""
        target = f"corrupt/{segment.rpartition('/')[2]}.{damage.offset}"
        source = os.open(os.path.join(self.directory, segment), os.O_RDONLY | os.O_CLOEXEC)
        try:
            copy = os.open(os.path.join(self.directory, target), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                copy_range(source, damage.offset, copy, damage.length)
                os.fsync(copy)
            finally:
                os.close(copy)
        finally:
            os.close(source)
        # Saved: the stretch no longer keeps the segment from going once its messages are finished.
        state = self._segments[segment]
        state.known.add(damage.offset)
        state.covered += damage.length
        return target

    def due(self, now: float) -> Iterator[scan.Queued | str]:
        """Deferred messages whose time has come, bucket by bucket; the name of a file that is no message."""
        top = os.path.join(self.directory, "deferred")
        for bucket in scan.list_names(top):
            start = layout.bucket_start(bucket)
            if start is None or start > now:
                continue
            path = os.path.join(top, bucket)
            names = scan.list_names(path)
            if not names and start + layout.BUCKET_SECONDS < now:
                try:
                    os.rmdir(path)
                except OSError:
                    pass
            for name in names:
                full = f"deferred/{bucket}/{name}"
                if name.startswith(layout.TEMPORARY_PREFIX):
                    continue
                try:
                    if os.stat(os.path.join(path, name)).st_mtime > now:
                        continue
                except OSError:
                    continue
                yield from self.read_own(full)

    def read_own(self, name: str) -> Iterator[scan.Queued | str]:
        """The message in a file of its own; ``name`` itself if it is damaged. A finished one is removed."""
        try:
            messages = [item for item in scan.recover_file(self.directory, name) if isinstance(item, scan.Queued)]
        except OSError:
            return
        if len(messages) != 1:
            yield name
        elif messages[0].finished:
            self.finish(messages[0].place, messages[0].envelope, [], last=True)
        else:
            yield messages[0]

    # -- what becomes of it -------------------------------------------------------------------------------------------

    def finish(self, place: Place, envelope: Envelope, indexes: list[int], *, last: bool) -> None:
        """Mark recipients done; ``last``: nobody is left, the message goes. Raises OSError for a file of its own."""
        if not self.is_segment(place):
            path = os.path.join(self.directory, place.segment)
            if last:
                try:
                    os.unlink(path)
                except FileNotFoundError:
                    pass
            else:
                self._append_state(path, envelope, [RecipientState(index, True) for index in indexes])
            return
        state = self._segments[place.segment]
        if last:
            state.pending.append(done_entry(place.offset, ALL_RECIPIENTS))
            state.open.discard(place.offset)  # finishing twice must not count for another message
        else:
            state.pending.extend(done_entry(place.offset, index) for index in indexes)
        self._dirty.add(place.segment)

    def _append_state(self, path: str, envelope: Envelope, changes: list[RecipientState]) -> None:
        record = state_record(State(envelope.attempts, envelope.next_try_at, envelope.warned, changes))
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            stat = os.fstat(fd)
            write_all(fd, [record])
            os.utime(fd, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        finally:
            os.close(fd)

    def flush(self) -> None:
        """Write the done entries of this loop turn."""
        dirty, self._dirty = self._dirty, set()
        for name in dirty:
            state = self._segments.get(name)
            if state is None or not state.pending:
                continue
            if state.done_fd < 0:
                path = os.path.join(self.directory, name + layout.DONE_SUFFIX)
                state.done_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            data = b"".join(state.pending)
            state.pending.clear()
            try:
                os.write(state.done_fd, data)
            except OSError:  # disk full: sent twice after a crash, never lost; tried again with the next flush
                state.pending.append(data)
                self._dirty.add(name)

    def sweep(self) -> None:
        """Remove segments whose writer is gone and whose messages are all finished."""
        for name in [name for name, state in self._segments.items() if not state.open and not state.pending]:
            self._remove_if_finished(name)

    def _remove_if_finished(self, name: str) -> None:
        path = os.path.join(self.directory, name)
        state = self._segments[name]
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._forget(name)
            return
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return
            if os.fstat(fd).st_size != state.covered:
                return  # not all of it has been seen: the next scan of incoming/ brings it
            os.unlink(path)
            self._forget(name)
        finally:
            os.close(fd)

    def _forget(self, name: str) -> None:
        state = self._segments.pop(name)
        if state.done_fd >= 0:
            os.close(state.done_fd)
        try:
            os.unlink(os.path.join(self.directory, name + layout.DONE_SUFFIX))
        except FileNotFoundError:
            pass

    # -- moves --------------------------------------------------------------------------------------------------------

    def move_batch(self, moves: list[Move]) -> None:
        """Make every message of the batch safe in its new file; blocks. The caller then calls ``moved`` for each."""
        directories: set[str] = set()
        for move in moves:
            try:
                self._write_copy(move, directories)
            except OSError as error:
                move.error = error
        for move in moves:
            if move.error is None:
                try:
                    os.rename(move.temporary, move.final)
                except OSError as error:
                    move.error = error
        for path in directories:
            try:
                layout.sync_directory(path)
            except OSError as error:
                for move in moves:
                    # A renamed file is whole under either name; only a copy must not be relied on yet.
                    if os.path.dirname(move.final) == path and move.old_place and self.is_segment(move.old_place):
                        move.error = move.error or error

    def _write_copy(self, move: Move, directories: set[str]) -> None:
        envelope = move.envelope
        relative = "hold" if move.queue == "hold" else "deferred/" + layout.bucket_name(envelope.next_try_at)
        target_directory = os.path.join(self.directory, relative)
        if not os.path.isdir(target_directory):
            os.makedirs(target_directory, 0o700, exist_ok=True)
            directories.add(os.path.dirname(target_directory))
        directories.add(target_directory)
        move.final = os.path.join(target_directory, envelope.queue_id)
        move.old_place = move.place
        source_path = os.path.join(self.directory, move.place.segment)
        when = (envelope.next_try_at, envelope.next_try_at)
        if self.is_segment(move.place):
            move.temporary = os.path.join(target_directory, layout.TEMPORARY_PREFIX + envelope.queue_id)
            source = os.open(source_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                crc = int.from_bytes(os.pread(source, 4, move.place.offset + 24), "big")
                all_recipients = envelope.recipients
                envelope.recipients = [all_recipients[index] for index in move.left]
                try:
                    head = message_head(envelope, move.place.content_length, crc)
                finally:
                    envelope.recipients = all_recipients
                target = os.open(move.temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                try:
                    write_all(target, [head])
                    copy_range(source, move.place.content_offset, target, move.place.content_length)
                    os.utime(target, when)
                    os.fsync(target)
                finally:
                    os.close(target)
            finally:
                os.close(source)
            size = len(head)
            length = size + move.place.content_length
            place = Place(f"{relative}/{envelope.queue_id}", 0, length, size, move.place.content_length)
        else:
            changes = [RecipientState(index, True) for index in move.done] + [
                RecipientState(i, False, envelope.recipients[i].status, envelope.recipients[i].reason)
                for i in move.left
            ]
            move.temporary = source_path
            fd = os.open(source_path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                write_all(fd, [state_record(State(envelope.attempts, envelope.next_try_at, envelope.warned, changes))])
                os.utime(fd, when)
                os.fsync(fd)
            finally:
                os.close(fd)
            old = move.place
            place = Place(
                f"{relative}/{envelope.queue_id}", old.offset, old.length, old.content_offset, old.content_length
            )
        move.place = place

    def moved(self, move: Move) -> None:
        """Called on the owner's loop for each finished move: the old place is given up if the new one is safe."""
        if move.error is None and move.old_place is not None and self.is_segment(move.old_place):
            self.finish(move.old_place, move.envelope, [], last=True)
        elif move.error is not None and move.old_place is not None:
            move.place = move.old_place

"""postsuper while nothing runs: the same work on the files, as the queue's owner.

A requeued message goes to ``maildrop/``, from where it takes the way of new mail when the system starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from estafeta.mail import maildrop
from estafeta.mail.queue_id import is_queue_id
from estafeta.spool import maildrop as drop
from estafeta.spool import scan
from estafeta.spool.content import ContentReader
from estafeta.spool.queue import Move, QueueStore


class StoppedQueue:
    """The queue, owned. Raises SpoolBusy while the queue manager owns it."""

    def __init__(self, queue_directory: str) -> None:
        self._directory = queue_directory
        self._store = QueueStore(queue_directory)

    def close(self) -> None:
        """See ``Queue``."""
        self._store.close()

    def apply(self, verb: str, queues: tuple[str, ...], ids: list[str]) -> list[str]:
        """See ``Queue``."""
        touched = []
        if verb == "delete" and "maildrop" in queues:
            touched += self._delete_dropped(ids)
        for queued in list(self._select(queues, ids)):
            if self._one(verb, queued):
                touched.append(queued.envelope.queue_id)
        self._store.flush()
        if verb == "requeue" and touched:
            drop.wake_pickup(self._directory)  # the system may run, and only the queue manager be starting again
        return touched

    def _delete_dropped(self, ids: list[str]) -> list[str]:
        names = [name for name in drop.names(self._directory) if "ALL" in ids or name in ids]
        for name in names:
            os.unlink(os.path.join(self._directory, drop.DIRECTORY, name))
        return names

    def _select(self, queues: tuple[str, ...], ids: list[str]) -> Iterator[scan.Queued]:
        wanted = {"incoming" if name == "active" else name for name in queues}
        if "ALL" in ids:
            for queue in ("incoming", "deferred", "hold"):
                if queue in wanted:
                    yield from scan.list_queue(self._directory, queue)
            return
        for queue_id in ids:
            queued = scan.find_message(self._directory, queue_id) if is_queue_id(queue_id) else None
            if queued is not None and queued.queue in wanted:
                yield queued

    def _one(self, verb: str, queued: scan.Queued) -> bool:
        store = self._store
        store.register(queued.place)
        if verb == "delete":
            store.finish(queued.place, queued.envelope, [], last=True)
            return True
        if verb == "hold":
            return queued.queue != "hold" and self._move(queued, "hold")
        if verb == "release":
            if queued.queue != "hold":
                return False
            queued.envelope.hold = False
            queued.envelope.next_try_at = time.time()
            return self._move(queued, "deferred")
        self._requeue(queued)
        return True

    def _move(self, queued: scan.Queued, queue: str) -> bool:
        left = [index for index in range(len(queued.envelope.recipients)) if index not in queued.done]
        move = Move(queued.place, queued.envelope, left, queue, sorted(queued.done))
        self._store.move_batch([move])
        self._store.moved(move)
        if move.error is not None:
            raise move.error
        return True

    def _requeue(self, queued: scan.Queued) -> None:
        envelope = queued.envelope
        reader = ContentReader(self._directory)
        try:
            content = reader.read(queued.place)
        finally:
            reader.close()
        left = [recipient for index, recipient in enumerate(envelope.recipients) if index not in queued.done]
        submission = maildrop.Submission(
            envelope.sender,
            [recipient.original or recipient.address for recipient in left],
            content,
            envelope.arrived_at,
            os.getuid(),
            context=envelope.rewrite_context if envelope.rewrite_context == "remote" else "local",
            notify=left[0].notify if left else 0,
            ret=envelope.ret if envelope.ret in ("FULL", "HDRS") else "",
            envid=envelope.envid,
        )
        drop.write(self._directory, maildrop.encode(submission))
        self._store.finish(queued.place, envelope, [], last=True)

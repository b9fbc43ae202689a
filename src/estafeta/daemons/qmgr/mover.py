"""Moves to deferred/ and hold/ in batches, in one helper thread: what has to move while a batch is under way forms the next."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from estafeta.daemons.qmgr.message import Message
from estafeta.spool.queue import Move

if TYPE_CHECKING:
    from estafeta.daemons.qmgr.service import Qmgr

_BATCH = 500


class Mover:
    """See the module."""

    def __init__(self, qmgr: Qmgr) -> None:
        self._qmgr = qmgr
        self._pending: list[tuple[Move, Message]] = []
        self._under_way = False
        self._jobs: SimpleQueue[list[tuple[Move, Message]] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="mover", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """True while a move is not finished."""
        return self._under_way or bool(self._pending)

    def move(self, message: Message, queue: str, left: list[int]) -> None:
        """Give ``message`` with its ``left`` recipients a file of its own in ``queue``; then Qmgr.moved is called."""
        envelope = message.envelope
        if queue == "hold":
            envelope.next_try_at = 0.0
        remaining = set(left)
        finished = [index for index in range(len(envelope.recipients)) if index not in remaining]
        self._pending.append((Move(message.place, envelope, left, queue, finished), message))
        if not self._under_way:
            self._under_way = True
            self._qmgr.context.loop.call_soon(self._start)

    def _start(self) -> None:
        batch, self._pending = self._pending[:_BATCH], self._pending[_BATCH:]
        # Done entries of this turn must be on disk before the copies that leave those recipients out.
        self._qmgr.store.flush()
        self._jobs.put(batch)

    def _work(self) -> None:
        while (batch := self._jobs.get()) is not None:
            self._qmgr.store.move_batch([move for move, _ in batch])
            self._qmgr.context.loop.call_soon_threadsafe(self._finished, batch)

    def _finished(self, batch: list[tuple[Move, Message]]) -> None:
        if self._pending:
            self._start()
        else:
            self._under_way = False
        for move, message in batch:
            self._qmgr.moved(move, message)

    def close(self) -> None:
        """Finish what is in hand and end the thread."""
        self._jobs.put(None)
        self._thread.join()

"""Messages put into a spool and read back from it, for tests that kill what works on it."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from estafeta.ipc.messages import Envelope, Place, Recipient
from estafeta.spool import scan
from estafeta.spool.content import ContentReader
from estafeta.spool.journal import Journal
from estafeta.spool.queue import QueueStore
from estafeta.spool.record import Damage

CONTENT = b"Subject: x\r\n\r\nbody\r\n"


def envelope(queue_id: str, recipients: int = 1) -> Envelope:
    return Envelope(queue_id, 1000.0, b"from@x", [Recipient(b"r%d@y" % n) for n in range(recipients)])


class Loop:
    """call_soon and call_soon_threadsafe of an event loop, run by hand."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]]] = queue.SimpleQueue()

    def soon(self, function: Callable[..., None], *arguments: Any) -> None:
        self._calls.put((function, arguments))

    def run_until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            function, arguments = self._calls.get(timeout=10)
            function(*arguments)


def commit(directory: str, ids: list[str], recipients: int = 1) -> list[Place]:
    """Write messages into one segment."""
    loop = Loop()
    journal = Journal(directory, loop.soon, loop.soon)
    places: list[Place] = []

    def safe(place: Place | None, error: OSError | None) -> None:
        assert place is not None, error
        places.append(place)

    for queue_id in ids:
        journal.add(envelope(queue_id, recipients), CONTENT, safe)
    loop.run_until(lambda: len(places) == len(ids))
    journal.close()
    return places


def recovered(directory: str) -> dict[str, set[int]]:
    """Unfinished messages of the whole queue: id -> recipients left; content is checked."""
    store = QueueStore(directory)
    reader = ContentReader(directory)
    left: dict[str, set[int]] = {}

    def note(item: scan.Queued) -> None:
        assert item.envelope.queue_id not in left, "twice in the queue"
        assert reader.read(item.place).endswith(CONTENT)
        everybody = {int(r.address[1:2]) for n, r in enumerate(item.envelope.recipients) if n not in item.done}
        left[item.envelope.queue_id] = everybody

    try:
        for item in list(store.recover_incoming()):
            if isinstance(item, scan.Queued):
                store.register(item.place)
                note(item)
            else:
                assert isinstance(item[1], Damage)
        for name in ("deferred", "hold"):
            for path in list(scan.own_file_names(directory, name)):
                for own in store.read_own(path):
                    assert isinstance(own, scan.Queued)
                    note(own)
    finally:
        reader.close()
        store.close()
    return left

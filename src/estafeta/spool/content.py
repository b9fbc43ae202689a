"""Reading content from the spool: what delivery agents, bounce and showq need, and nothing that changes the queue.

Descriptors of segments stay open for a while, because the next message is likely to lie in the same one. A segment whose
file has been replaced or removed is opened again.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from estafeta.ipc.messages import Envelope, Place
from estafeta.spool.record import HEAD_SIZE, DamagedRecord, parse_record

_KEPT = 16


class ContentReader:
    """Content by place. Call ``close`` at the end."""

    def __init__(self, queue_directory: str) -> None:
        self._directory = queue_directory
        self._open: OrderedDict[str, int] = OrderedDict()

    def descriptor(self, place: Place) -> int:
        """A file descriptor for pread or sendfile; owned by the reader. Raises OSError."""
        segment = place.segment
        fd = self._open.get(segment)
        if fd is not None:
            return fd
        fd = os.open(os.path.join(self._directory, segment), os.O_RDONLY | os.O_CLOEXEC)
        self._open[segment] = fd
        if len(self._open) > _KEPT:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def read(self, place: Place, start: int = 0, length: int | None = None) -> bytes:
        """Content bytes ``start`` to ``start+length`` (all without them). Raises OSError, also when the file is too short."""
        size = place.content_length - start if length is None else min(length, place.content_length - start)
        if size <= 0:
            return b""
        fd = self.descriptor(place)
        data = os.pread(fd, size, place.content_offset + start)
        while len(data) < size:
            more = os.pread(fd, size - len(data), place.content_offset + start + len(data))
            if not more:
                raise OSError(f"queue file {place.segment} is shorter than its record")
            data += more
        return data

    def release(self, place: Place) -> None:
        """The message is done with: a file of its own need not stay open."""
        if place.offset == 0 and not place.segment.startswith("incoming/seg-"):
            fd = self._open.pop(place.segment, None)
            if fd is not None:
                os.close(fd)

    def close(self) -> None:
        """Close every descriptor."""
        while self._open:
            os.close(self._open.popitem()[1])


def read_envelope(queue_directory: str, place: Place) -> Envelope:
    """The envelope stored at ``place``, as it was committed; raises OSError or DamagedRecord."""
    fd = os.open(os.path.join(queue_directory, place.segment), os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, max(HEAD_SIZE, place.content_offset - place.offset), place.offset)
    finally:
        os.close(fd)
    found = parse_record(head, 0, check_content=False)
    if found.envelope is None:
        raise DamagedRecord("no message record")
    return found.envelope

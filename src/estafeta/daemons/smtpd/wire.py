"""The socket of an SMTP conversation: bytes in, replies out, and when not to read.

Owns the non-blocking socket and its watchers. Replies of one turn go out together; while they cannot, or are held back, nothing
new is handled; while a command waits, input is kept up to a high-water mark and then left in the kernel.
Invariants: nothing is sent or read after ``shut``; ``blocked`` is true from a write that did not fit until it is out.
"""

from __future__ import annotations

import asyncio
import socket

_READ = 65536


class Wire:
    """Base of a session; the session implements ``received``, ``lost`` and ``resume``."""

    __slots__ = ("_out", "_paused", "_sock", "blocked", "closed", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.loop = loop
        self._sock = sock
        self._out: list[bytes] = []
        self._paused = False
        self.blocked = False
        self.closed = False

    # -- what the session does ----------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes came from the client."""
        raise NotImplementedError

    def lost(self) -> None:
        """The client is gone."""
        raise NotImplementedError

    def resume(self) -> None:
        """What was in the way of output is not any more."""
        raise NotImplementedError

    # -- reading ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to read."""
        self.loop.add_reader(self._sock.fileno(), self._readable)

    def shut(self) -> None:
        """Close the socket."""
        self.closed = True
        self.loop.remove_reader(self._sock.fileno())
        if self.blocked:
            self.loop.remove_writer(self._sock.fileno())
        self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            self.lost()
            return
        if not data:
            self.lost()
            return
        self.received(data)

    @property
    def paused(self) -> bool:
        """Whether reading is stopped."""
        return self._paused

    def pause_reading(self) -> None:
        """Leave what comes in the kernel."""
        if not self._paused:
            self._paused = True
            self.loop.remove_reader(self._sock.fileno())

    def resume_reading(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            self.loop.add_reader(self._sock.fileno(), self._readable)

    # -- writing ------------------------------------------------------------------------------------------------------

    def reply(self, line: bytes) -> None:
        """Queue one reply (without line end)."""
        self._out.append(line + b"\r\n")

    def reply_now(self, line: bytes) -> None:
        """Send a last reply."""
        self.reply(line)
        self.flush()

    def flush(self) -> None:
        """Send the queued replies."""
        if not self._out or self.closed or self.blocked:
            return
        data = b"".join(self._out) if len(self._out) > 1 else self._out[0]
        self._out.clear()
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.lost()
            return
        if sent < len(data):
            self._out.append(data[sent:])
            self.blocked = True
            self.loop.add_writer(self._sock.fileno(), self._writable)

    def _writable(self) -> None:
        self.loop.remove_writer(self._sock.fileno())
        self._release()

    def hold_back(self, delay_s: float) -> None:
        """Hold the replies (and so the client) back for a while."""
        if not self.blocked:
            self.blocked = True
            self.loop.call_later(delay_s, self._release)

    def _release(self) -> None:
        self.blocked = False
        self.flush()
        self.resume()

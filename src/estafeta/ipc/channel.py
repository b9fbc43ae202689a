"""Connections between Estafeta's processes: a shared client channel and the server's side of it.

One channel to a service carries every request of a process; replies come in any order. The hot path uses callbacks
(``Channel.request``), everything else awaits (``Channel.call``). When the connection breaks, every request under way
fails with ServiceLost; the next request connects again. A request that could not be written because the service is not
there yet waits for the master to start it (connecting to its socket is what makes the master do so).

A service that is about to be replaced says Retire: what is under way ends on the old connection, everything new goes to a new
one, and nothing is lost between the two.

Invariants: a callback is called exactly once, with a reply or with ServiceLost; never from inside ``request``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from estafeta.ipc.frames import FrameError, FrameReader, encode_frame
from estafeta.ipc.messages import Message, Refused, Retire

CONNECT_ATTEMPTS = 10
CONNECT_DELAY_S = 0.05


class ServiceLost(Exception):
    """The service ended the connection, cannot be reached, or refused the request as unexpected."""


Reply = Message | ServiceLost
Callback = Callable[[Reply], None]


class _Outbox:
    """Frames of one loop turn leave together: one system call a turn and peer, not one a frame."""

    transport: Any = None

    def __init__(self) -> None:
        self._frames: list[bytes] = []

    def put(self, frame: bytes) -> None:
        """Queue a frame for the end of the turn."""
        if not self._frames:
            asyncio.get_running_loop().call_soon(self.flush)
        self._frames.append(frame)

    def flush(self) -> None:
        """Write what is queued."""
        frames = self._frames
        if frames and not self.transport.is_closing():
            self._frames = []
            self.transport.writelines(frames)


class Link(_Outbox, asyncio.Protocol):
    """One connection of a channel, with the requests that are under way on it."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._reader = FrameReader()
        self.pending: dict[int, Callback] = {}
        self.streams = 0  # open streams: their pieces must all go this way
        self.retired = False
        self.congested = False
        self._drain_waiters: list[asyncio.Future[None]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.set_write_buffer_limits(high=1 << 20)

    def data_received(self, data: bytes) -> None:
        channel = self._channel
        try:
            for number, message in self._reader.feed(data):
                callback = self.pending.pop(number, None)
                if callback is not None:
                    callback(ServiceLost(message.reason) if isinstance(message, Refused) else message)
                elif isinstance(message, Retire):
                    self.retired = True
                    channel.leave(self)
                elif channel.on_message is not None:
                    channel.on_message(message)
        except FrameError as error:
            channel.warn(f"{channel.path}: {error}")
            self.transport.abort()
        if self.retired:
            self.close_if_done()

    def close_if_done(self) -> None:
        """A retired link goes when nothing is under way on it."""
        if self.retired and not self.pending and not self.streams:
            self.flush()
            self.transport.close()

    def request(self, number: int, frame: bytes, callback: Callback) -> None:
        """Send a request on this very connection."""
        self.pending[number] = callback
        self.put(frame)

    def notify(self, message: Message) -> None:
        """Send without waiting for an answer, on this very connection."""
        if not self.transport.is_closing():
            self.put(encode_frame(0, message))

    async def drain(self) -> None:
        """Wait while the peer reads slower than we write."""
        self.flush()
        if self.congested:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drain_waiters.append(waiter)
            await waiter

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.leave(self)
        pending, self.pending = self.pending, {}
        error = ServiceLost(f"{self._channel.path}: connection lost")
        for callback in pending.values():
            callback(error)
        self.resume_writing()


class Channel:
    """One process's connection to one service, by the path of its socket."""

    def __init__(
        self,
        path: str,
        *,
        warn: Callable[[str], None],
        on_connect: Callable[[], Message | None] | None = None,
        on_message: Callable[[Message], None] | None = None,
    ) -> None:
        self.path = path
        self.warn = warn
        self.on_message = on_message
        self._on_connect = on_connect
        self._number = 0
        self._link: Link | None = None
        self._waiting: list[tuple[int, bytes, Callback | None]] = []
        self._connecting: asyncio.Task[None] | None = None
        self._connect_waiters: list[asyncio.Future[Link]] = []
        self._closed = False
        self._number_seen = -1

    def close_if_unused(self) -> None:
        """End the connection if no request has been made since the last call of this; the next request connects again.

        Not one that says who we are or brings news (a queue manager takes the end of cleanup's for cleanup's end).
        """
        link = self._link
        unused = self._number == self._number_seen
        self._number_seen = self._number
        if link is None or link.pending or link.streams or self._on_connect is not None or self.on_message is not None:
            return
        if unused:
            self.leave(link)
            link.flush()
            link.transport.close()

    def request(self, message: Message, callback: Callback) -> None:
        """Send ``message``; ``callback`` gets the reply or a ServiceLost."""
        number = self._next_number()
        frame = encode_frame(number, message)
        link = self._link
        if link is not None:
            link.pending[number] = callback
            link.put(frame)
        else:
            self._wait(number, frame, callback)

    def _next_number(self) -> int:
        self._number = (self._number % 0x7FFFFFFF) + 1
        return self._number

    def notify(self, message: Message) -> None:
        """Send ``message`` without waiting for an answer."""
        self._next_number()
        link = self._link
        if link is not None:
            link.put(encode_frame(0, message))
        else:
            self._wait(0, encode_frame(0, message), None)

    async def call(self, message: Message, link: Link | None = None) -> Message:
        """Send ``message`` (on ``link`` if that is given) and wait for the reply; raises ServiceLost."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def done(reply: Reply) -> None:
            if future.done():
                return
            if isinstance(reply, ServiceLost):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        if link is None:
            self.request(message, done)
        elif link.transport.is_closing():
            raise ServiceLost(f"{self.path}: connection lost")
        else:
            number = self._next_number()
            link.request(number, encode_frame(number, message), done)
        return await future

    async def stream(self) -> Link:
        """A connection for a request in several pieces. ``end_stream`` gives it back. Raises ServiceLost."""
        link = self._link
        if link is None:
            waiter: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
            self._connect_waiters.append(waiter)
            self.connect_soon()
            link = await waiter
        link.streams += 1
        return link

    def end_stream(self, link: Link) -> None:
        """The last piece has been sent (a reply may still come)."""
        link.streams -= 1
        link.close_if_done()

    def _wait(self, number: int, frame: bytes, callback: Callback | None) -> None:
        self._waiting.append((number, frame, callback))
        self.connect_soon()

    def connect_soon(self) -> None:
        """Connect now rather than with the first request."""
        if self._link is None and self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        reason: Exception | None = None
        for attempt in range(CONNECT_ATTEMPTS):
            try:
                _, link = await loop.create_unix_connection(lambda: Link(self), self.path)
                break
            except OSError as error:
                reason = error
                await asyncio.sleep(CONNECT_DELAY_S * (attempt + 1))
        else:
            self._connecting = None
            self._give_up(ServiceLost(f"connect to {self.path}: {reason}"))
            return
        self._connecting = None
        if self._closed or link.transport.is_closing():
            link.transport.close()
            self._give_up(ServiceLost(f"{self.path}: connection lost"))
            return
        self._link = link
        first = self._on_connect() if self._on_connect is not None else None
        if first is not None:
            link.notify(first)
        waiting, self._waiting = self._waiting, []
        for number, frame, callback in waiting:
            if callback is not None:
                link.pending[number] = callback
            link.put(frame)
        waiters, self._connect_waiters = self._connect_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(link)

    def _give_up(self, error: ServiceLost) -> None:
        self.warn(str(error))
        waiting, self._waiting = self._waiting, []
        waiters, self._connect_waiters = self._connect_waiters, []
        for _, _, callback in waiting:
            if callback is not None:
                callback(error)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def leave(self, link: Link) -> None:
        """Use ``link`` for nothing new."""
        if self._link is link:
            self._link = None

    def close(self) -> None:
        """End the connection; requests under way fail."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._link is not None:
            self._link.flush()
            self._link.transport.close()


class Connection(_Outbox, asyncio.Protocol):
    """The server's side of a channel. ``handler(connection, number, message)`` answers with ``reply`` when it can."""

    def __init__(
        self,
        handler: Callable[[Connection, int, Message], None],
        *,
        warn: Callable[[str], None],
        on_lost: Callable[[Connection], None] | None = None,
    ) -> None:
        super().__init__()
        self._handler = handler
        self._warn = warn
        self._on_lost = on_lost
        self._reader = FrameReader()
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.open = True

    def data_received(self, data: bytes) -> None:
        try:
            for number, message in self._reader.feed(data):
                self._handler(self, number, message)
        except FrameError as error:
            self._warn(f"bad request on an internal socket: {error}")
            self.transport.abort()

    def reply(self, number: int, message: Message) -> None:
        """Answer request ``number``; nothing happens if the peer has gone."""
        if self.open:
            self.put(encode_frame(number, message))

    def retire(self) -> None:
        """Ask the peer to finish what is under way and to go elsewhere."""
        self.reply(0, Retire())

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._on_lost is not None:
            self._on_lost(self)

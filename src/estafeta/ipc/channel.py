"""Connections between Estafeta's processes: a shared client channel and the server's side of it.

One channel to a service carries every request of a process; replies come in any order. The hot path uses callbacks
(``Channel.request``), everything else awaits (``Channel.call``). When the connection breaks, every request under way
fails with ServiceLost; the next request connects again. A request that could not be written because the service is not
there yet waits for the master to start it (connecting to its socket is what makes the master do so).

Invariants: a callback is called exactly once, with a reply or with ServiceLost; never from inside ``request``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from estafeta.ipc.frames import FrameError, FrameReader, encode_frame
from estafeta.ipc.messages import Message, Refused

CONNECT_ATTEMPTS = 10
CONNECT_DELAY_S = 0.05


class ServiceLost(Exception):
    """The service ended the connection, cannot be reached, or refused the request as unexpected."""


Reply = Message | ServiceLost
Callback = Callable[[Reply], None]


class _ClientLink(asyncio.Protocol):
    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.reader = FrameReader()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        transport.set_write_buffer_limits(high=1 << 20)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        channel = self.channel
        try:
            for number, message in self.reader.feed(data):
                callback = channel.pending.pop(number, None)
                if callback is not None:
                    callback(ServiceLost(message.reason) if isinstance(message, Refused) else message)
                elif number == 0 and channel.on_message is not None:
                    channel.on_message(message)
        except FrameError as error:
            channel.warn(f"{channel.path}: {error}")
            if self.transport is not None:
                self.transport.abort()

    def pause_writing(self) -> None:
        self.channel.congested = True

    def resume_writing(self) -> None:
        self.channel.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        self.channel.lost(self)


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
        self.pending: dict[int, Callback] = {}
        self.congested = False
        self.on_message = on_message
        self._on_connect = on_connect
        self._number = 0
        self._link: _ClientLink | None = None
        self._waiting: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._socket: socket.socket | None = None
        self._closed = False

    def request(self, message: Message, callback: Callback) -> None:
        """Send ``message``; ``callback`` gets the reply or a ServiceLost."""
        number = self._number = (self._number % 0x7FFFFFFF) + 1
        self.pending[number] = callback
        self._send(encode_frame(number, message))

    def notify(self, message: Message) -> None:
        """Send ``message`` without waiting for an answer."""
        self._send(encode_frame(0, message))

    async def call(self, message: Message) -> Message:
        """Send ``message`` and wait for the reply; raises ServiceLost."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def done(reply: Reply) -> None:
            if future.done():
                return
            if isinstance(reply, ServiceLost):
                future.set_exception(reply)
            else:
                future.set_result(reply)

        self.request(message, done)
        return await future

    async def drain(self) -> None:
        """Wait while the peer reads slower than we write."""
        if self.congested:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drain_waiters.append(waiter)
            await waiter

    def drained(self) -> None:
        self.congested = False
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _send(self, frame: bytes) -> None:
        link = self._link
        if link is not None and link.transport is not None:
            link.transport.write(frame)
            return
        self._waiting.append(frame)
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def connect_soon(self) -> None:
        """Connect now rather than with the first request."""
        if self._link is None and self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        reason: Exception | None = None
        for attempt in range(CONNECT_ATTEMPTS):
            try:
                _, link = await loop.create_unix_connection(lambda: _ClientLink(self), self.path)
                break
            except OSError as error:
                reason = error
                await asyncio.sleep(CONNECT_DELAY_S * (attempt + 1))
        else:
            self._connecting = None
            self.warn(f"connect to {self.path}: {reason}")
            self._waiting.clear()
            self._fail(f"connect to {self.path}: {reason}")
            return
        self._connecting = None
        self._link = link
        transport = link.transport
        if transport is None or self._closed:
            return
        first = self._on_connect() if self._on_connect is not None else None
        if first is not None:
            transport.write(encode_frame(0, first))
        waiting, self._waiting = self._waiting, []
        transport.writelines(waiting)

    def _fail(self, reason: str) -> None:
        pending, self.pending = self.pending, {}
        error = ServiceLost(reason)
        for callback in pending.values():
            callback(error)
        self.drained()

    def lost(self, link: _ClientLink) -> None:
        if self._link is link:
            self._link = None
            self._fail(f"{self.path}: connection lost")

    def close(self) -> None:
        """End the connection; requests under way fail."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._link is not None and self._link.transport is not None:
            self._link.transport.close()


class Connection(asyncio.Protocol):
    """The server's side of a channel. ``handler(connection, number, message)`` answers with ``reply`` when it can."""

    def __init__(
        self,
        handler: Callable[[Connection, int, Message], None],
        *,
        warn: Callable[[str], None],
        on_lost: Callable[[Connection], None] | None = None,
    ) -> None:
        self._handler = handler
        self._warn = warn
        self._on_lost = on_lost
        self._reader = FrameReader()
        self.transport: Any = None
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
            self.transport.write(encode_frame(number, message))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._on_lost is not None:
            self._on_lost(self)

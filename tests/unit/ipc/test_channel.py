"""Channels: replies in any order, a lost service, a service that retires, malformed frames."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.ipc.channel import Channel, Connection, ServiceLost
from estafeta.ipc.frames import FrameError, FrameReader, encode_frame
from estafeta.ipc.messages import Chunk, Message, QueueCommand, QueueCommandReply, Rewrite, Rewritten


class Service:
    """A server on a unix socket that keeps requests until told to answer."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.requests: list[tuple[Connection, int, Message]] = []
        self.connections: list[Connection] = []
        self.warnings: list[str] = []
        self.arrived = asyncio.Event()

    async def __aenter__(self) -> Service:
        def handle(connection: Connection, number: int, message: Message) -> None:
            self.requests.append((connection, number, message))
            self.arrived.set()

        def make() -> Connection:
            connection = Connection(handle, warn=self.warnings.append)
            self.connections.append(connection)
            return connection

        self._server = await asyncio.get_running_loop().create_unix_server(make, self.path)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for connection in self.connections:
            if connection.open:
                connection.transport.abort()
        await self._server.wait_closed()

    async def wait(self, count: int) -> None:
        while len(self.requests) < count:
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 5)


def run(path: Path, body: Callable[[Service, Channel], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Service(str(path / "s")) as service:
            channel = Channel(service.path, warn=service.warnings.append)
            await body(service, channel)
            channel.close()
            await asyncio.sleep(0)

    asyncio.run(main())


def test_replies_in_any_order(tmp_path: Path) -> None:
    async def body(service: Service, channel: Channel) -> None:
        calls = [asyncio.ensure_future(channel.call(Rewrite("local", b"%d" % n))) for n in range(3)]
        await service.wait(3)
        for connection, number, message in reversed(service.requests):
            assert isinstance(message, Rewrite)
            connection.reply(number, Rewritten(message.address + b"!"))
        assert [reply.address for reply in await asyncio.gather(*calls)] == [b"0!", b"1!", b"2!"]  # type: ignore[union-attr]

    run(tmp_path, body)


def test_a_lost_service_fails_what_is_under_way_and_is_connected_anew(tmp_path: Path) -> None:
    async def body(service: Service, channel: Channel) -> None:
        call = asyncio.ensure_future(channel.call(Rewrite("local", b"x")))
        await service.wait(1)
        service.requests[0][0].transport.abort()
        with pytest.raises(ServiceLost):
            await call
        again = asyncio.ensure_future(channel.call(Rewrite("local", b"y")))
        await service.wait(2)
        connection, number, _ = service.requests[1]
        connection.reply(number, Rewritten(b"z"))
        assert await again == Rewritten(b"z")

    run(tmp_path, body)


def test_retire_loses_nothing(tmp_path: Path) -> None:
    """What is under way ends on the old connection, streams included; the new goes to a new one; then the old one closes."""

    async def body(service: Service, channel: Channel) -> None:
        old_call = asyncio.ensure_future(channel.call(Rewrite("local", b"old")))
        link = await channel.stream()
        await service.wait(1)
        old = service.requests[0][0]
        old.retire()
        await asyncio.sleep(0.01)
        new_call = asyncio.ensure_future(channel.call(Rewrite("local", b"new")))
        await service.wait(2)
        new, number, _ = service.requests[1]
        assert new is not old
        new.reply(number, Rewritten(b"new"))
        assert await new_call == Rewritten(b"new")
        old.reply(service.requests[0][1], Rewritten(b"old"))
        assert await old_call == Rewritten(b"old")
        assert old.open, "a stream is still open on it"
        link.notify(Chunk(1, b"piece"))
        last = asyncio.ensure_future(channel.call(Chunk(1, b"last", last=True), link))
        await service.wait(4)
        channel.end_stream(link)
        assert service.requests[2][0] is old
        old.reply(service.requests[3][1], Rewritten(b"done"))
        assert await last == Rewritten(b"done")
        await asyncio.sleep(0.01)
        assert not old.open

    run(tmp_path, body)


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("estafeta.ipc.channel.CONNECT_DELAY_S", 0.001)

    async def main() -> None:
        channel = Channel(str(tmp_path / "none"), warn=lambda text: None)
        with pytest.raises(ServiceLost, match="connect to"):
            await channel.call(Rewrite("local", b"x"))
        with pytest.raises(ServiceLost):
            await channel.stream()

    asyncio.run(main())


def test_a_malformed_frame_ends_the_connection(tmp_path: Path) -> None:
    async def body(service: Service, channel: Channel) -> None:
        reader, writer = await asyncio.open_unix_connection(service.path)
        writer.write(struct.pack(">II", 9, 1) + b"\xc1junk")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        assert "bad request" in service.warnings[0]
        writer.close()

    run(tmp_path, body)


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.text(max_size=30)), min_size=1, max_size=6), st.data())
def test_frames_at_any_cut(frames: list[tuple[int, str]], data: st.DataObject) -> None:
    stream = b"".join(encode_frame(number, QueueCommand(text, [text])) for number, text in frames)
    reader = FrameReader()
    got = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        got += [(number, message.verb) for number, message in reader.feed(stream[:cut])]  # type: ignore[union-attr]
        stream = stream[cut:]
    assert got == frames


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waits_for_more(data: bytes) -> None:
    reader = FrameReader()
    try:
        for _, message in reader.feed(data):
            assert isinstance(message, QueueCommandReply) or message is not None
    except FrameError:
        pass

"""cleanup(8) without a master: what comes out of it for what goes in, streams, refusals, broken disks."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from estafeta.daemons.cleanup.service import Cleanup
from estafeta.ipc.messages import Arrived, Chunk, CleanupFlag, CleanupStatus, Enqueue, EnqueueReply, Envelope, Recipient
from estafeta.spool import layout
from estafeta.spool.content import ContentReader
from support.queue_manager import FakeChannel, FakeContext

CONTENT = b"From: a@x.example\r\nTo: b@y.example\r\nDate: now\r\nMessage-Id: <m@x>\r\n\r\nbody\r\n"


class Peer:
    """The connection of a caller."""

    open = True

    def __init__(self) -> None:
        self.replies: dict[int, EnqueueReply] = {}

    def reply(self, number: int, message: Any) -> None:
        assert number not in self.replies, "answered twice"
        self.replies[number] = message


class Kitchen:
    """``async with Kitchen(tmp_path, parameter=...)``: a running cleanup."""

    def __init__(self, directory: Path, **parameters: str) -> None:
        self.directory = directory
        self.parameters = {"mydestination": "here.example", "mydomain": "here.example", **parameters}
        self.peer = Peer()
        self.told: list[Arrived] = []
        self._number = 0

    async def __aenter__(self) -> Kitchen:
        layout.prepare(str(self.directory))
        self.context = FakeContext(self.directory, **self.parameters)
        self.cleanup = Cleanup(self.context)
        self.cleanup.prepare()
        await self.cleanup.start()
        channel: Any = FakeChannel(self.context, "qmgr")
        channel.notify = self.told.append
        self.cleanup.qmgr = channel
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.cleanup.stop()

    def send(self, message: Any, peer: Peer | None = None) -> int:
        self._number += 1
        self.cleanup.on_message(peer or self.peer, self._number, message)  # type: ignore[arg-type]
        return self._number

    async def answer(self, number: int, peer: Peer | None = None) -> EnqueueReply:
        replies = (peer or self.peer).replies
        for _ in range(3000):
            if number in replies:
                return replies[number]
            await asyncio.sleep(0.001)
        raise AssertionError(f"no answer to {number}\n" + "\n".join(self.context.sink.lines))

    async def take(
        self, content: bytes = CONTENT, *recipients: bytes | Recipient, flags: int = int(CleanupFlag.EXTERNAL), **fields: Any
    ) -> tuple[EnqueueReply, Envelope, bytes]:
        """One message: the answer, and what the queue has of it."""
        people = [r if isinstance(r, Recipient) else Recipient(r) for r in recipients or (b"to@y.example",)]
        envelope = Envelope(fields.pop("queue_id", f"{0xABC0000000 + self._number:X}"), time.time(),
                            fields.pop("sender", b"from@x.example"), people, **fields)  # fmt: skip
        number = self.send(Enqueue(envelope, content, flags))
        reply = await self.answer(number)
        if reply.status != CleanupStatus.OK:
            return reply, envelope, b""
        arrived = self.told[-1]
        reader = ContentReader(str(self.directory))
        stored = reader.read(arrived.place)
        reader.close()
        return reply, arrived.envelope, stored


def in_kitchen(**parameters: str) -> Callable[[Callable[[Kitchen], Coroutine[Any, Any, None]]], Callable[[Path], None]]:
    def wrap(scene: Callable[[Kitchen], Coroutine[Any, Any, None]]) -> Callable[[Path], None]:
        def test(tmp_path: Path) -> None:
            async def run() -> None:
                async with Kitchen(tmp_path, **parameters) as kitchen:
                    await scene(kitchen)

            asyncio.run(run())

        test.__name__ = scene.__name__
        return test

    return wrap


def addresses(envelope: Envelope) -> list[bytes]:
    return [recipient.address for recipient in envelope.recipients]


def headers(content: bytes) -> dict[str, str]:
    head = content.partition(b"\r\n\r\n")[0].decode()
    return dict(line.split(": ", 1) for line in head.split("\r\n") if ": " in line)


@in_kitchen()
async def test_a_complete_message_stays_as_it_is(kitchen: Kitchen) -> None:
    _, envelope, stored = await kitchen.take()
    assert stored == CONTENT
    assert envelope.size == len(CONTENT)


@in_kitchen(undisclosed_recipients_header="To: undisclosed-recipients:;")
async def test_missing_headers_of_our_users(kitchen: Kitchen) -> None:
    _, envelope, stored = await kitchen.take(b"Subject: s\r\n\r\nbody\r\n")
    found = headers(stored)
    assert list(found) == ["Subject", "Message-Id", "Date", "From", "To"]
    assert found["From"] == "from@x.example" and found["Message-Id"].endswith(f".{envelope.queue_id}@me.example>")
    assert found["To"] == "undisclosed-recipients:;"
    assert stored.endswith(b"\r\n\r\nbody\r\n")


@in_kitchen()
async def test_resent_headers(kitchen: Kitchen) -> None:
    _, _, stored = await kitchen.take(b"Resent-To: x@y.example\r\nFrom: a@b.example\r\n\r\nbody\r\n")
    found = headers(stored)
    assert {"Resent-Message-Id", "Resent-Date", "Resent-From"} <= set(found)
    assert "Message-Id" not in found and "Date" not in found


@in_kitchen()
async def test_strangers_headers_stay_alone(kitchen: Kitchen) -> None:
    _, _, stored = await kitchen.take(b"From: a\r\nCc: b@pc\r\n\r\nbody\r\n", rewrite_context="remote")
    assert headers(stored) == {"From": "a", "Cc": "b@pc"}


@in_kitchen(remote_header_rewrite_domain="remote.invalid", always_add_missing_headers="yes")
async def test_strangers_headers_completed(kitchen: Kitchen) -> None:
    _, _, stored = await kitchen.take(b"From: a\r\nCc: b@pc\r\n\r\nbody\r\n", rewrite_context="remote")
    found = headers(stored)
    assert (found["From"], found["Cc"]) == ("a@remote.invalid", "b@pc.remote.invalid")
    assert "Date" in found and "Message-Id" in found


@in_kitchen(myorigin="here.example", append_dot_mydomain="yes")
async def test_our_headers_completed(kitchen: Kitchen) -> None:
    _, _, stored = await kitchen.take(b"From: Joe <joe>\r\nTo: a@pc, \"x y\" <b>\r\nCc: c@d.example\r\n\r\nbody\r\n")
    found = headers(stored)
    assert found["From"] == "Joe <joe@here.example>"
    assert found["To"] == 'a@pc.here.example, "x y" <b@here.example>'
    assert found["Cc"] == "c@d.example"


@in_kitchen()
async def test_dropped_headers(kitchen: Kitchen) -> None:
    _, _, stored = await kitchen.take(b"Bcc: secret@x.example,\r\n more@x.example\r\nReturn-Path: <x>\r\nContent-Length: 3\r\n" + CONTENT)
    assert stored == CONTENT


@in_kitchen(hopcount_limit="3")
async def test_hop_count(kitchen: Kitchen) -> None:
    reply, _, _ = await kitchen.take(b"Received: x\r\n" * 2 + CONTENT)
    assert reply.status == CleanupStatus.OK
    reply, _, _ = await kitchen.take(b"Received: x\r\n" * 3 + CONTENT)
    assert reply.status == CleanupStatus.HOPS


@in_kitchen(message_size_limit="1000")
async def test_size_limit(kitchen: Kitchen) -> None:
    assert (await kitchen.take(CONTENT + b"x" * 800))[0].status == CleanupStatus.OK
    assert (await kitchen.take(CONTENT + b"x" * 1000))[0].status == CleanupStatus.TOO_BIG


@in_kitchen(
    canonical_maps="inline:{ joe@x.example=Joe.Doe@x.example }",
    sender_canonical_maps="inline:{ s@x.example=sender@x.example }",
    recipient_canonical_maps="inline:{ r@x.example=recipient@x.example }",
)
async def test_canonical_classes(kitchen: Kitchen) -> None:
    text = b"From: joe@x.example\r\nSender: s@x.example\r\nTo: r@x.example, s@x.example, joe@x.example\r\n\r\n"
    _, envelope, stored = await kitchen.take(text, b"r@x.example", b"s@x.example", b"joe@x.example", sender=b"s@x.example")
    assert envelope.sender == b"sender@x.example"
    assert addresses(envelope) == [b"recipient@x.example", b"s@x.example", b"Joe.Doe@x.example"]
    assert envelope.recipients[0].original == b"r@x.example"
    found = headers(stored)
    assert (found["From"], found["Sender"]) == ("Joe.Doe@x.example", "sender@x.example")
    assert found["To"] == "recipient@x.example, s@x.example, Joe.Doe@x.example"


@in_kitchen(
    virtual_alias_maps="inline:{ { list@x.example = a@y.example, b@z.example }, { loop@x.example = loop@x.example, c@y.example }, "
    "ping@x.example=pong@x.example, pong@x.example=ping@x.example, @all.example=catch@y.example, a@y.example=deep@y.example, "
    "{ @keep.example = @moved.example }, user=local-user@y.example }",
    recipient_delimiter="+",
)
async def test_virtual_aliases(kitchen: Kitchen) -> None:
    async def to(*recipients: bytes) -> list[bytes]:
        return addresses((await kitchen.take(CONTENT, *recipients))[1])

    assert sorted(await to(b"list@x.example")) == [b"b@z.example", b"deep@y.example"]
    assert sorted(await to(b"loop@x.example")) == [b"c@y.example", b"loop@x.example"]
    assert await to(b"anything@all.example") == [b"catch@y.example"]
    assert await to(b"anything+ext@keep.example") == [b"anything+ext@moved.example"]
    assert sorted(await to(b"list+ext@x.example")) == [b"b+ext@z.example", b"deep+ext@y.example"]
    assert await to(b"user@here.example") == [b"local-user@y.example"]
    assert len(await to(b"ping@x.example")) == 1
    assert await to(b"list@x.example", b"deep@y.example", b"b@z.example", b"b@z.example") != []
    envelope = (await kitchen.take(CONTENT, Recipient(b"list@x.example", notify=4, orcpt=b"rfc822;o")))[1]
    assert {(r.original, r.notify, r.orcpt) for r in envelope.recipients} == {(b"list@x.example", 4, b"rfc822;o")}


@in_kitchen(virtual_alias_maps="pcre:{ { /^(.*)@grow.example$$/ = x$$1@grow.example } }", virtual_alias_recursion_limit="10")
async def test_virtual_recursion_is_bounded(kitchen: Kitchen) -> None:
    reply, _, _ = await kitchen.take(CONTENT, b"a@grow.example")
    assert reply.status == CleanupStatus.EXPANSION
    assert any("unreasonable virtual_alias_maps" in line for line in kitchen.context.sink.lines)


@in_kitchen(virtual_alias_maps="inline:{ { l@x.example = a@x.example, b@x.example, c@x.example } }", virtual_alias_expansion_limit="2")
async def test_virtual_expansion_is_bounded(kitchen: Kitchen) -> None:
    assert (await kitchen.take(CONTENT, b"l@x.example"))[0].status == CleanupStatus.EXPANSION


@in_kitchen(always_bcc="archive@z.example", sender_bcc_maps="inline:{ from@x.example=s-copy@z.example }",
            recipient_bcc_maps="inline:{ to@y.example=r-copy@z.example }")  # fmt: skip
async def test_copies(kitchen: Kitchen) -> None:
    _, envelope, _ = await kitchen.take()
    assert addresses(envelope) == [b"to@y.example", b"archive@z.example", b"s-copy@z.example", b"r-copy@z.example"]
    assert [r.notify for r in envelope.recipients] == [0, 1, 1, 1]
    _, envelope, _ = await kitchen.take(flags=int(CleanupFlag.INTERNAL))
    assert addresses(envelope) == [b"to@y.example"]


@in_kitchen(enable_original_recipient="no")
async def test_duplicates(kitchen: Kitchen) -> None:
    _, envelope, _ = await kitchen.take(CONTENT, b"a@x.example", b"A@X.example", b"b@x.example", b"a@x.example")
    assert addresses(envelope) == [b"a@x.example", b"b@x.example"]


@pytest.mark.parametrize("parameter", ["canonical_maps", "virtual_alias_maps", "recipient_bcc_maps"])
def test_a_table_that_cannot_be_asked(tmp_path: Path, parameter: str) -> None:
    async def run() -> None:
        async with Kitchen(tmp_path, **{parameter: "fail:broken"}) as kitchen:
            reply, _, _ = await kitchen.take()
            assert reply.status == CleanupStatus.WRITE_ERROR
            assert kitchen.told == []

    asyncio.run(run())


# -- streams --------------------------------------------------------------------------------------------------------------


def opening(number: int, text: bytes = CONTENT) -> Enqueue:
    envelope = Envelope(f"{0xABD0000000 + number:X}", time.time(), b"from@x.example", [Recipient(b"to@y.example")])
    return Enqueue(envelope, text, int(CleanupFlag.EXTERNAL), more=True, stream=number)


@in_kitchen()
async def test_streams_mix_with_whole_messages(kitchen: Kitchen) -> None:
    chooser = random.Random(3)
    wanted: dict[str, bytes] = {}
    work: list[list[Any]] = []
    for number in range(1, 30):
        begin = opening(number)
        if number % 3:
            pieces = [b"piece %d\r\n" % n * chooser.randrange(1, 2000) for n in range(chooser.randrange(1, 5))]
            work.append([begin, *[Chunk(number, piece) for piece in pieces[:-1]], Chunk(number, pieces[-1], last=True)])
            wanted[begin.envelope.queue_id] = CONTENT + b"".join(pieces)
        else:
            begin.more, begin.stream = False, 0
            work.append([begin])
            wanted[begin.envelope.queue_id] = CONTENT
    last = []
    while work:
        queue = chooser.choice(work)
        number = kitchen.send(queue.pop(0))
        if not queue:
            work.remove(queue)
            last.append(number)
        if chooser.random() < 0.2:
            await asyncio.sleep(0)
    for number in last:
        assert (await kitchen.answer(number)).status == CleanupStatus.OK
    reader = ContentReader(str(kitchen.directory))
    assert {told.envelope.queue_id: reader.read(told.place) for told in kitchen.told} == wanted
    reader.close()


def large_files(kitchen: Kitchen) -> list[str]:
    return [name for name in os.listdir(kitchen.directory / "incoming") if not name.startswith("seg-")]


@in_kitchen()
async def test_an_aborted_stream_leaves_nothing(kitchen: Kitchen) -> None:
    kitchen.send(opening(1))
    kitchen.send(Chunk(1, b"more"))
    kitchen.send(Chunk(1, b"", abort=True))
    kitchen.send(opening(2))
    kitchen.cleanup.on_lost(kitchen.peer)  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert large_files(kitchen) == [] and kitchen.told == [] and kitchen.peer.replies == {}
    number = kitchen.send(Chunk(2, b"late", last=True))
    assert (await kitchen.answer(number)).status == CleanupStatus.WRITE_ERROR


@pytest.mark.parametrize(("code", "status"), [(errno.ENOSPC, CleanupStatus.NO_SPACE), (errno.EIO, CleanupStatus.WRITE_ERROR)])
@pytest.mark.parametrize("when", ["open", "middle", "sync"])
def test_the_disk_breaks_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, code: int, status: CleanupStatus
) -> None:
    from estafeta.spool.journal import LargeMessage

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    async def run() -> None:
        async with Kitchen(tmp_path) as kitchen:
            if when == "open":
                monkeypatch.setattr(LargeMessage, "__init__", broken)
            kitchen.send(opening(1))
            kitchen.send(Chunk(1, b"a\r\n" * 1000))
            if when == "middle":
                monkeypatch.setattr(LargeMessage, "write", broken)
            if when == "sync":
                monkeypatch.setattr(os, "fdatasync", broken)
                monkeypatch.setattr(os, "fsync", broken)
            kitchen.send(Chunk(1, b"b\r\n" * 1000))
            reply = await kitchen.answer(kitchen.send(Chunk(1, b"c", last=True)))
            assert reply.status == status
            assert kitchen.told == [] and large_files(kitchen) == []

    asyncio.run(run())

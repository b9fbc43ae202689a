"""Killed before every system call: submission, pickup, postsuper on a stopped queue, damage set aside, mailboxes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from estafeta.commands.postsuper.stopped import StoppedQueue
from estafeta.delivery.locking import LockPolicy
from estafeta.delivery.maildir import MaildirMessage, MaildirWriter
from estafeta.delivery.mbox import MboxJob, MboxWriter
from estafeta.ipc.messages import CleanupStatus, EnqueueReply
from estafeta.mail import maildrop
from estafeta.spool import layout, scan
from estafeta.spool import maildrop as drop
from estafeta.spool.journal import LargeMessage
from estafeta.spool.queue import Move, QueueStore
from estafeta.spool.record import Damage
from support.crash import at_every_step
from support.spool import CONTENT, commit, envelope, recovered

ALL = ("hold", "incoming", "active", "deferred")


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], str]:
    counter = iter(range(10000))

    def make() -> str:
        directory = str(tmp_path / str(next(counter)))
        layout.prepare(directory)
        os.mkdir(os.path.join(directory, "maildrop"))
        return directory

    return make


def submission(text: bytes = b"body") -> bytes:
    content = b"Subject: x\r\n\r\n" + text * 1000 + b"\r\n"
    return maildrop.encode(maildrop.Submission(b"from@x", [b"to@y"], content, 1000.0, os.getuid()))


def test_submit(fresh: Callable[[], str]) -> None:
    """What sendmail was told is safe is there, whole; nothing half-written ever has a final name."""

    def work(directory: str) -> None:
        drop.submit(directory, submission())
        Path(directory, "acknowledged").touch()

    def check(directory: str, finished: bool) -> None:
        names = drop.names(directory)
        for name in names:
            assert drop.read(directory, name).content.endswith(b"body\r\n")
        if finished or Path(directory, "acknowledged").exists():
            assert len(names) == 1

    assert at_every_step(fresh, work, check) >= 5


def test_pickup(fresh: Callable[[], str]) -> None:
    """A submission is in maildrop until cleanup has it; killed in between it is in both, never in neither."""
    from estafeta.daemons.pickup.service import Pickup
    from support.queue_manager import FakeContext

    def prepare() -> str:
        directory = fresh()
        drop.write(directory, submission())
        return directory

    def work(directory: str) -> None:
        def cleanup(message: Any) -> EnqueueReply:
            with open(os.path.join(directory, "queued"), "ab") as stream:
                stream.write(b"x")
            return EnqueueReply(CleanupStatus.OK, "ABC0000001")

        async def run() -> None:
            context = FakeContext(Path(directory))
            context.auto["cleanup"] = cleanup
            pickup = Pickup(context)
            pickup.prepare()
            await pickup.start()
            pickup.scan()
            while pickup.is_busy():
                await asyncio.sleep(0)

        os.chdir(directory)
        asyncio.run(run())

    def check(directory: str, finished: bool) -> None:
        queued = Path(directory, "queued").exists()
        assert drop.names(directory) or queued
        if finished:
            assert queued and not drop.names(directory)

    assert at_every_step(prepare, work, check) >= 2


def test_set_aside(fresh: Callable[[], str]) -> None:
    def prepare() -> str:
        directory = fresh()
        commit(directory, ["CCCC01"])
        Path(directory, "hold", "GARBAGE1").write_bytes(b"precious garbage")
        return directory

    def work(directory: str) -> None:
        store = QueueStore(directory)
        store.set_aside("hold/GARBAGE1")

    def check(directory: str, finished: bool) -> None:
        places = [Path(directory, "hold", "GARBAGE1"), Path(directory, "corrupt", "GARBAGE1")]
        assert [path.read_bytes() for path in places if path.exists()] == [b"precious garbage"]
        assert finished <= places[1].exists()
        if finished:
            assert set(recovered(directory)) == {"CCCC01"}

    assert at_every_step(prepare, work, check) >= 2


def test_save_damage(fresh: Callable[[], str]) -> None:
    """A segment with a damaged stretch: it goes only when the stretch is saved and its whole messages are finished."""
    spoilt = b"\xff" * 40

    def prepare() -> str:
        directory = fresh()
        places = commit(directory, ["CCCC01", "CCCC02", "CCCC03"])
        path = Path(directory, places[1].segment)
        data = bytearray(path.read_bytes())
        at = places[1].offset
        data[at : at + 40] = spoilt
        path.write_bytes(data)
        return directory

    def work(directory: str) -> None:
        store = QueueStore(directory)
        messages = []
        for item in list(store.recover_incoming()):
            if isinstance(item, scan.Queued):
                store.register(item.place)
                messages.append(item)
            else:
                assert isinstance(item[1], Damage)
                store.save_damage(*item)
        for item in messages:
            store.finish(item.place, item.envelope, [], last=True)
            store.flush()
            Path(directory, "done-" + item.envelope.queue_id).touch()
        store.sweep()

    def check(directory: str, finished: bool) -> None:
        left = recovered(directory)
        for queue_id in ("CCCC01", "CCCC03"):
            if Path(directory, "done-" + queue_id).exists():
                assert queue_id not in left
        saved = [path.read_bytes() for path in Path(directory, "corrupt").iterdir()]
        segments = scan.segment_names(directory)
        if not segments:
            assert any(data.startswith(spoilt) for data in saved), "the damaged stretch is gone for good"
            assert left == {}
        assert finished <= (not segments)

    assert at_every_step(prepare, work, check) >= 8


def test_recover_after_a_lost_mark(fresh: Callable[[], str]) -> None:
    """A message was moved, its mark in the segment lost; recovery itself killed at every step."""

    def prepare() -> str:
        directory = fresh()
        one, _ = commit(directory, ["CCCC01", "CCCC02"], recipients=2)
        store = QueueStore(directory)
        store.register(one)
        moved = envelope("CCCC01", 2)
        moved.next_try_at = 5000.0
        store.move_batch([Move(one, moved, [1], "deferred", [0])])
        store.close()  # without ``moved``: no mark
        return directory

    def work(directory: str) -> None:
        assert recovered(directory) == {"CCCC01": {1}, "CCCC02": {0, 1}}

    def check(directory: str, finished: bool) -> None:
        assert recovered(directory) == {"CCCC01": {1}, "CCCC02": {0, 1}}

    assert at_every_step(prepare, work, check) >= 2


# -- postsuper while nothing runs -----------------------------------------------------------------------------------------


def with_everything(fresh: Callable[[], str]) -> Callable[[], str]:
    """CCCC01 in a segment, CCCC02 deferred, CCCC03 on hold, CCCC04 large; two recipients each."""

    def prepare() -> str:
        directory = fresh()
        places = dict(zip(["CCCC01", "CCCC02", "CCCC03"], commit(directory, ["CCCC01", "CCCC02", "CCCC03"], 2), strict=True))
        store = QueueStore(directory)
        for place in places.values():
            store.register(place)
        for queue_id, queue in (("CCCC02", "deferred"), ("CCCC03", "hold")):
            moving = envelope(queue_id, 2)
            moving.next_try_at = 5000.0 if queue == "deferred" else 0.0
            move = Move(places[queue_id], moving, [0, 1], queue)
            store.move_batch([move])
            assert move.error is None
            store.moved(move)
        store.close()
        file = LargeMessage(directory, "CCCC04", envelope("CCCC04", 2))
        file.write(CONTENT)
        file.commit(envelope("CCCC04", 2))
        return directory

    return prepare


EVERYTHING = {f"CCCC0{n}": {0, 1} for n in (1, 2, 3, 4)}


@pytest.mark.parametrize("queue_id", sorted(EVERYTHING))
@pytest.mark.parametrize("verb", ["delete", "hold", "release", "requeue"])
def test_postsuper(fresh: Callable[[], str], verb: str, queue_id: str) -> None:
    def work(directory: str) -> None:
        queue = StoppedQueue(directory)
        touched = queue.apply(verb, ALL, [queue_id])
        Path(directory, "touched").write_text(" ".join(touched))
        queue.close()

    def check(directory: str, finished: bool) -> None:
        left = recovered(directory)
        dropped = drop.names(directory)
        for name in dropped:
            assert drop.read(directory, name).recipients == [b"r0@y", b"r1@y"]
        for other, recipients in EVERYTHING.items():
            if other != queue_id:
                assert left.pop(other) == recipients
        if not finished:
            if verb == "requeue":
                assert left or dropped
            elif verb != "delete":
                assert left == {queue_id: {0, 1}}
            return
        if verb == "delete":
            assert left == {} and not dropped
        elif verb == "requeue":
            assert left == {} and len(dropped) == 1
        else:
            assert left == {queue_id: {0, 1}}
            on_hold = os.path.exists(os.path.join(directory, "hold", queue_id))
            assert on_hold == (verb == "hold")

    steps = at_every_step(with_everything(fresh), work, check)
    assert steps >= 1


# -- mailboxes ------------------------------------------------------------------------------------------------------------


def test_mbox_append(fresh: Callable[[], str]) -> None:
    """Killed while appending: what was there stays; the torn message is tried again, and everything whole is found."""
    policy = LockPolicy(("fcntl", "dotlock"), attempts=3, delay_s=0.001, stale_s=-1.0)

    def deliver(directory: str, tag: bytes) -> None:
        job = MboxJob(os.path.join(directory, "box"), b"From s  date\nX: " + tag + b"\n", 0, None, policy)
        asyncio.run(MboxWriter().append(job, (b"\nbody\n",), os.getuid(), os.getgid()))

    def prepare() -> str:
        directory = fresh()
        deliver(directory, b"old")
        return directory

    def work(directory: str) -> None:
        deliver(directory, b"new")
        Path(directory, "acknowledged").touch()

    def check(directory: str, finished: bool) -> None:
        box = Path(directory, "box")
        assert box.read_bytes().startswith(b"From s  date\nX: old\n\nbody\n\n")
        if Path(directory, "acknowledged").exists():
            assert b"X: new\n\nbody\n\n" in box.read_bytes()
        deliver(directory, b"next")  # a lock that the dead left does not hold up the next one for ever
        assert box.read_bytes().endswith(b"From s  date\nX: next\n\nbody\n\n")

    assert at_every_step(prepare, work, check) >= 4


@pytest.mark.parametrize("messages", [1, 12])
def test_maildir_commit(fresh: Callable[[], str], messages: int) -> None:
    """No torn file in new/; what was reported as delivered is there."""

    def work(directory: str) -> None:
        async def run() -> None:
            loop = asyncio.get_running_loop()
            writer = MaildirWriter("host", loop.call_soon, loop.call_soon_threadsafe)
            left = asyncio.Semaphore(0)

            def done(number: int) -> Callable[[OSError | None], None]:
                def call(error: OSError | None) -> None:
                    assert error is None
                    Path(directory, f"told-{number}").touch()
                    left.release()

                return call

            for n in range(messages):
                writer.add(
                    MaildirMessage(f"{directory}/box/", os.getuid(), os.getgid(), b"N: %d\n" % n, (b"\nbody\n",), done(n))
                )
            for _ in range(messages):
                await left.acquire()
            writer.close()

        asyncio.run(run())

    def check(directory: str, finished: bool) -> None:
        texts = [path.read_bytes() for path in Path(directory, "box", "new").glob("*")]
        assert all(text.endswith(b"\nbody\n") and text.startswith(b"N: ") for text in texts)
        for n in range(messages):
            if finished or Path(directory, f"told-{n}").exists():
                assert texts.count(b"N: %d\n\nbody\n" % n) == 1

    assert at_every_step(fresh, work, check) >= 5



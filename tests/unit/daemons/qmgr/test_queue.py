"""The active queue and those who wait for it: limits, queue runs, moves that fail, what postsuper asks for."""

from __future__ import annotations

import asyncio
import errno
import time
from typing import Any

import pytest

from estafeta.daemons.qmgr import control
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import CleanupStatus, EnqueueReply, NoticeReply, Outcome, QueueCommand
from estafeta.spool import scan
from estafeta.spool.scan import Queued
from support.queue_manager import Stage
from support.scenes import on_stage

SENT, DEFERRED = Outcome.SENT, Outcome.DEFERRED
FOREVER = float(1 << 40)
ALL = "hold incoming active deferred :"


async def command(stage: Stage, verb: str, *ids: str, queues: str = ALL) -> list[str]:
    reply = await control.run(stage.qmgr, QueueCommand(verb, [*queues.split(), *ids]))
    assert reply.ok
    return reply.lines


async def deferred_message(stage: Stage, *recipients: bytes) -> str:
    envelope = await stage.arrive(*(recipients or (b"a@x.example",)))
    for ask in stage.asks():
        ask.outcome(DEFERRED)
    await stage.until(lambda: envelope.queue_id not in stage.qmgr.active, "deferred")
    return envelope.queue_id


async def held_message(stage: Stage) -> str:
    queue_id = await deferred_message(stage)
    assert await command(stage, "hold", queue_id) == [queue_id]
    await stage.until(lambda: stage.files("hold") == [queue_id] and not stage.qmgr.active)
    return queue_id


def in_queue(stage: Stage) -> list[str]:
    return sorted(
        queued.envelope.queue_id
        for queue in ("incoming", "deferred", "hold")
        for queued in scan.list_queue(str(stage.directory), queue)
    )


@on_stage(qmgr_message_active_limit="3")
async def test_the_active_limit(stage: Stage) -> None:
    for n in range(10):
        await stage.arrive(b"%d@x.example" % n)
    assert len(stage.qmgr.active) == 3
    delivered = []
    while asks := stage.asks():
        assert len(stage.qmgr.active) <= 3
        for ask in asks:
            delivered += ask.recipients
            ask.outcome(SENT)
        await stage.settle()
    assert delivered == [b"%d@x.example" % n for n in range(10)]
    assert in_queue(stage) == []


@on_stage(qmgr_message_active_limit="1")
async def test_who_waits_keeps_what_is_done(stage: Stage) -> None:
    """After a restart, beyond the limit: recipients that were finished before stay finished."""
    place, envelope = await stage.store(b"a@x.example", b"b@x.example", b"c@x.example")
    await stage.arrive(b"first@x.example")
    stage.qmgr.arrived(place, envelope, {0, 2})
    stage.qmgr.arrived(place, envelope, {0, 2})
    stage.asks()[0].outcome(SENT)
    await stage.settle()
    (ask,) = stage.asks()
    assert ask.recipients == [b"b@x.example"]


@on_stage(qmgr_message_active_limit="1")
async def test_a_waiting_message_can_be_deleted_and_held(stage: Stage) -> None:
    await stage.arrive(b"first@x.example")
    deleted = await stage.arrive(b"deleted@x.example")
    held = await stage.arrive(b"held@x.example")
    last = await stage.arrive(b"last@x.example")
    assert await command(stage, "delete", deleted.queue_id) == [deleted.queue_id]
    assert await command(stage, "hold", held.queue_id) == [held.queue_id]
    await stage.until(lambda: stage.files("hold") == [held.queue_id])
    recipients: list[bytes] = []

    def all_asked() -> bool:
        for ask in stage.asks():
            recipients.extend(ask.recipients)
            ask.outcome(SENT)
        return b"last@x.example" in recipients

    await stage.until(all_asked)
    assert recipients == [b"first@x.example", b"last@x.example"]
    await stage.until(lambda: in_queue(stage) == [held.queue_id])
    await stage.until(lambda: last.queue_id not in stage.qmgr.backlog)


@on_stage(qmgr_message_active_limit="2")
async def test_a_queue_run_waits_for_room(stage: Stage) -> None:
    ids = {await deferred_message(stage) for _ in range(7)}
    stage.qmgr.deferred.flush()
    await stage.until(lambda: len(stage.qmgr.active) == 2)
    await stage.settle(30)
    assert len(stage.qmgr.active) == 2
    new = await stage.arrive(b"new@x.example")
    seen = set()
    first = True
    while asks := stage.asks():
        for ask in asks:
            seen.add(ask.message.envelope.queue_id)
            ask.outcome(SENT)
        await stage.settle(30)
        if first:
            assert any(a.recipients == [b"new@x.example"] for a in stage.context.asked), "new mail goes first"
            first = False
    assert seen == ids | {new.queue_id}


@on_stage()
async def test_a_queue_run_takes_what_is_due(stage: Stage) -> None:
    queue_id = await deferred_message(stage)
    stage.qmgr.deferred.run_now()
    await stage.settle(30)
    assert stage.context.asked == []
    stage.qmgr.deferred.run_now(time.time() + 7200)
    await stage.settle(30)
    assert [ask.message.envelope.queue_id for ask in stage.asks()] == [queue_id]


@on_stage()
async def test_two_runs_at_once(stage: Stage) -> None:
    await deferred_message(stage)
    stage.qmgr.deferred.run_now()
    stage.qmgr.deferred.flush()
    await stage.settle(30)
    assert len(stage.asks()) == 1


@on_stage()
async def test_garbage_among_the_deferred(stage: Stage) -> None:
    queue_id = await deferred_message(stage)
    bucket = next((stage.directory / "deferred").iterdir())
    (bucket / "GARBAGE").write_bytes(b"this is no message")
    (bucket / "EMPTY").touch()
    stage.qmgr.deferred.flush()
    await stage.until(lambda: stage.files("corrupt") == ["EMPTY", "GARBAGE"])
    assert [ask.message.envelope.queue_id for ask in stage.asks()] == [queue_id]


@pytest.mark.parametrize("where", ["open", "rename", "fsync"])
@pytest.mark.parametrize("again", [False, True])
def test_a_move_that_fails_is_made_later(tmp_path: Any, where: str, again: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the message stays where it is, and moves when there is room; from a segment and from a file of its own."""
    import os

    real = getattr(os, where)
    broken = False
    failures = 0

    def fail(*arguments: Any, **options: Any) -> Any:
        nonlocal failures
        target = str(arguments[0]) if where != "fsync" else os.readlink(f"/proc/self/fd/{arguments[0]}")
        if broken and "deferred" in target:
            failures += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    async def run() -> None:
        nonlocal broken
        async with Stage(tmp_path) as stage:
            if again:
                queue_id = await deferred_message(stage)
                stage.qmgr.deferred.flush()
                await stage.until(lambda: stage.context.asked)
            else:
                queue_id = (await stage.arrive(b"a@x.example")).queue_id
            stage.qmgr.dispatcher.backoff_s = stage.qmgr.settings.minimal_backoff_s
            from dataclasses import replace

            stage.qmgr.settings = replace(stage.qmgr.settings, minimal_backoff_s=0.01)
            monkeypatch.setattr(os, where, fail)
            broken = True
            stage.asks()[0].outcome(DEFERRED)
            await stage.until(lambda: failures >= 2, f"failures of {where}")
            broken = False
            await stage.until(lambda: not stage.qmgr.active, "the move in the end")
            assert in_queue(stage) == [queue_id]
            assert stage.files("deferred") == [queue_id]
            assert any("save queue file" in line for line in stage.log)
            stage.qmgr.deferred.flush()
            await stage.until(lambda: stage.context.asked)
            stage.asks()[0].outcome(SENT)
            await stage.settle()
            assert in_queue(stage) == []

    asyncio.run(run())


# -- postsuper ------------------------------------------------------------------------------------------------------------


@on_stage()
async def test_delete(stage: Stage) -> None:
    active = await stage.arrive(b"active@x.example")
    deferred = await stage.arrive(b"deferred@x.example")
    asks = stage.asks()
    asks[1].outcome(DEFERRED)
    await stage.until(lambda: deferred.queue_id not in stage.qmgr.active)
    assert await command(stage, "delete", active.queue_id, deferred.queue_id, "FFFFF") == [active.queue_id, deferred.queue_id]
    assert stage.files("deferred") == []
    asks[0].outcome(DEFERRED)
    await stage.settle()
    assert in_queue(stage) == [] and stage.qmgr.active == {}


@on_stage()
async def test_delete_while_it_moves(stage: Stage) -> None:
    envelope = await stage.arrive(b"a@x.example")
    stage.asks()[0].outcome(DEFERRED)
    await stage.settle(1)
    assert await command(stage, "delete", envelope.queue_id) == [envelope.queue_id]
    await stage.until(lambda: not stage.qmgr.active)
    assert in_queue(stage) == []


@on_stage()
async def test_hold_while_it_moves(stage: Stage) -> None:
    envelope = await stage.arrive(b"a@x.example", b"b@x.example")
    stage.asks()[0].outcome(SENT, DEFERRED)
    await stage.settle(1)
    assert await command(stage, "hold", envelope.queue_id) == [envelope.queue_id]
    await stage.until(lambda: not stage.qmgr.active)
    assert (stage.files("hold"), stage.files("deferred")) == ([envelope.queue_id], [])
    (queued,) = scan.list_queue(str(stage.directory), "hold")
    assert [r.address for n, r in enumerate(queued.envelope.recipients) if n not in queued.done] == [b"b@x.example"]


@on_stage()
async def test_hold_an_active_message(stage: Stage) -> None:
    envelope = await stage.arrive(b"a@x.example", b"b@y.example")
    one, two = stage.asks()
    one.outcome(SENT)
    assert await command(stage, "hold", envelope.queue_id) == [envelope.queue_id]
    two.outcome(DEFERRED)
    await stage.until(lambda: not stage.qmgr.active)
    assert stage.files("hold") == [envelope.queue_id]


@on_stage()
async def test_release(stage: Stage) -> None:
    queue_id = await held_message(stage)
    assert await command(stage, "hold", queue_id) == [], "on hold already"
    stage.qmgr.deferred.flush()
    await stage.settle(30)
    assert stage.context.asked == [], "a flush does not touch what is on hold"
    assert await command(stage, "release", "ALL", queues="hold :") == [queue_id]
    assert await command(stage, "release", "ALL", queues="hold :") == [], "not twice while it is under way"
    await stage.until(lambda: stage.context.asked, "released mail goes out at once")
    assert (stage.files("hold"), stage.files("deferred")) == ([], [queue_id])
    assert await command(stage, "release", queue_id) == []
    (ask,) = stage.asks()
    ask.outcome(SENT)
    await stage.settle()
    assert in_queue(stage) == []


@on_stage()
async def test_release_and_hold_again_at_once(stage: Stage) -> None:
    queue_id = await held_message(stage)
    assert await command(stage, "release", queue_id) == [queue_id]
    assert await command(stage, "hold", queue_id) == [queue_id]
    await stage.until(lambda: not stage.qmgr.active)
    assert stage.files("hold") == [queue_id] and stage.context.asked == []


@on_stage()
async def test_arrives_on_hold(stage: Stage) -> None:
    envelope = await stage.arrive(b"a@x.example", hold=True)
    await stage.until(lambda: stage.files("hold") == [envelope.queue_id])
    assert stage.context.asked == []


@on_stage()
async def test_requeue(stage: Stage) -> None:
    envelope = await stage.arrive(b"s@x.example", b"d@x.example", envid=b"E", flags=2)
    stage.asks()[0].outcome(SENT, DEFERRED)
    await stage.until(lambda: not stage.qmgr.active)
    work = asyncio.ensure_future(command(stage, "requeue", envelope.queue_id))
    await stage.until(stage.enqueued)
    stage.qmgr.deferred.flush()  # must not take it up now
    await stage.settle(30)
    assert stage.asks() == []
    (ask,) = stage.asks("cleanup")
    new = ask.message.envelope
    assert ([r.address for r in new.recipients], new.queue_id, new.envid, new.attempts) == ([b"d@x.example"], "", b"E", 0)
    ask.answer(EnqueueReply(CleanupStatus.OK, "NEW01"))
    assert await work == [envelope.queue_id]
    assert in_queue(stage) == [] and stage.qmgr.active == {}
    assert f"{envelope.queue_id}: requeued as NEW01" in stage.log


@on_stage()
async def test_requeue_goes_back_to_the_original_recipient(stage: Stage) -> None:
    from estafeta.ipc.messages import Recipient

    envelope = await stage.arrive(Recipient(b"alias-member@x.example", b"alias@x.example"))
    stage.asks()[0].outcome(DEFERRED)
    await stage.until(lambda: not stage.qmgr.active)
    work = asyncio.ensure_future(command(stage, "requeue", envelope.queue_id))
    await stage.until(stage.enqueued)
    (ask,) = stage.asks("cleanup")
    assert ask.message.envelope.recipients == [Recipient(b"alias@x.example")]
    ask.answer(EnqueueReply(CleanupStatus.WRITE_ERROR, ""))
    assert await work == []
    assert in_queue(stage) == [envelope.queue_id]


@on_stage(qmgr_message_active_limit="1")
async def test_a_requeue_that_fails_leaves_the_message_in_its_place(stage: Stage) -> None:
    await stage.arrive(b"first@x.example")
    waiting = await stage.arrive(b"waiting@x.example")
    work = asyncio.ensure_future(command(stage, "requeue", waiting.queue_id))
    await stage.until(stage.enqueued)
    stage.asks("cleanup")[0].answer(ServiceLost("gone"))
    assert await work == []
    stage.asks()[0].outcome(SENT)
    await stage.settle()
    (ask,) = stage.asks()
    assert ask.recipients == [b"waiting@x.example"]


@on_stage()
async def test_a_command_for_all_meets_a_queue_that_moves_on(stage: Stage) -> None:
    """While the first message is requeued, the second is delivered and deferred: it is neither requeued nor counted twice."""
    first = await stage.arrive(b"first@x.example")
    others = [await stage.arrive(b"%d@x.example" % n) for n in range(4)]
    asks = stage.asks()
    asks[0].outcome(DEFERRED)
    await stage.until(lambda: first.queue_id not in stage.qmgr.active)
    pairs = [Queued("incoming", m.place, m.envelope, set()) for m in stage.qmgr.active.values()]
    asks[1].outcome(DEFERRED)
    asks[2].outcome(SENT)
    await stage.until(lambda: len(stage.qmgr.active) == len(others) - 2)
    for queued in pairs[:2]:
        assert not await control._apply(stage.qmgr, "requeue", queued)
        assert not await control._apply(stage.qmgr, "delete", queued)
        stage.qmgr.store.finish(queued.place, queued.envelope, [], last=True)
    assert stage.enqueued() == []
    stage._journal.close()
    stage.qmgr.store.flush()
    stage.qmgr.store.sweep()
    left = {m.queue_id for m in [first, others[0], *others[2:]]}
    assert set(in_queue(stage)) == left, "the segment went while it had messages"


@on_stage()
async def test_flush_one_and_site(stage: Stage) -> None:
    x = await deferred_message(stage, b"a@x.example")
    y = await deferred_message(stage, b"a@y.example")
    z = await deferred_message(stage, b"a@z.example", b"b@Y.example")
    assert (await control.run(stage.qmgr, QueueCommand("flush_one", [x]))).ok
    assert not (await control.run(stage.qmgr, QueueCommand("flush_one", ["FFFFF"]))).ok
    assert not (await control.run(stage.qmgr, QueueCommand("flush_one", ["../../etc"]))).ok
    assert sorted((await control.run(stage.qmgr, QueueCommand("flush_site", ["y.example"]))).lines) == sorted([y, z])
    await stage.settle(30)
    assert {ask.message.envelope.queue_id for ask in stage.asks()} == {x, y, z}
    reply = await control.run(stage.qmgr, QueueCommand("active", []))
    assert sorted(reply.lines) == sorted([x, y, z])
    assert not (await control.run(stage.qmgr, QueueCommand("dance", []))).ok


@on_stage()
async def test_recovery_yields_the_whole_queue(stage: Stage) -> None:
    """What nobody told the queue manager of is found by a scan, once."""
    for n in range(5):
        await stage.store(b"%d@x.example" % n)
    stage.qmgr.rescan()
    await stage.until(lambda: len(stage.qmgr.active) == 5, "all of them")
    stage.qmgr.rescan()
    stage.context.auto["bounce"] = lambda _: NoticeReply(True)
    await stage.until(lambda: stage.qmgr._rescan is None and not stage.qmgr._rescanning)
    assert sum(1 for _ in stage.asks()) == 5



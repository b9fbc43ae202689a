"""What becomes of a message when every recipient has a result."""

from __future__ import annotations

import time

from estafeta.daemons.qmgr.settings import next_delay
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import (
    NOTIFY_DELAY,
    NOTIFY_FAILURE,
    NOTIFY_NEVER,
    NOTIFY_SUCCESS,
    ContentFlag,
    NoticeKind,
    NoticeReply,
    Outcome,
    Recipient,
)
from estafeta.spool.scan import Queued
from support.queue_manager import Stage
from support.scenes import on_stage

SENT, DEFERRED, BOUNCED = Outcome.SENT, Outcome.DEFERRED, Outcome.BOUNCED
FOREVER = float(1 << 40)


def only(stage: Stage) -> Queued:
    (queued,) = stage.qmgr.store.due(FOREVER)
    assert isinstance(queued, Queued)
    return queued


def left(queued: Queued) -> list[bytes]:
    return [r.address for n, r in enumerate(queued.envelope.recipients) if n not in queued.done]


async def answer_notice(stage: Stage, service: str = "bounce", ok: bool = True) -> list[bytes]:
    await stage.settle()
    (ask,) = stage.asks(service)
    addresses = [item.recipient.address for item in ask.message.recipients]
    ask.answer(NoticeReply(ok))
    await stage.settle()
    return addresses


@on_stage()
async def test_partial_results(stage: Stage) -> None:
    envelope = await stage.arrive(b"s@x.example", b"d@x.example", b"b@x.example")
    stage.asks()[0].outcome(SENT, DEFERRED, BOUNCED)
    await stage.settle()
    (ask,) = stage.asks("bounce")
    assert ask.message.kind == NoticeKind.FAILURE
    assert [item.recipient.address for item in ask.message.recipients] == [b"b@x.example"]
    assert stage.files("deferred") == [], "nothing moves before the notice is safe"
    ask.answer(NoticeReply(True))
    await stage.until(lambda: not stage.qmgr.active)
    queued = only(stage)
    assert left(queued) == [b"d@x.example"]
    assert (queued.envelope.recipients[0].status, queued.envelope.recipients[0].reason) == ("4.2.0", "deferred")
    assert queued.envelope.attempts == 1
    assert not any(f"{envelope.queue_id}: removed" in line for line in stage.log)


@on_stage()
async def test_a_notice_that_fails_is_tried_again_with_the_message(stage: Stage) -> None:
    await stage.arrive(b"b@x.example")
    stage.asks()[0].outcome(BOUNCED)
    await answer_notice(stage, ok=False)
    await stage.until(lambda: not stage.qmgr.active)
    assert left(only(stage)) == [b"b@x.example"]
    stage.qmgr.deferred.flush()
    await stage.until(lambda: stage.context.asked)
    stage.asks()[0].outcome(BOUNCED)
    await stage.settle()
    stage.asks("bounce")[0].answer(ServiceLost("gone"))
    await stage.until(lambda: not stage.qmgr.active)
    assert left(only(stage)) == [b"b@x.example"]
    stage.qmgr.deferred.flush()
    await stage.until(lambda: stage.context.asked)
    stage.asks()[0].outcome(BOUNCED)
    assert await answer_notice(stage) == [b"b@x.example"]
    assert stage.qmgr.active == {} and stage.files("deferred") == []


@on_stage(maximal_queue_lifetime="1d", bounce_queue_lifetime="1h")
async def test_expiry(stage: Stage) -> None:
    hours = 3600.0
    await stage.arrive(b"young@x.example", arrived_at=time.time() - 23 * hours)
    old = await stage.arrive(b"old@x.example", b"sent@x.example", arrived_at=time.time() - 25 * hours)
    await stage.arrive(b"null@x.example", sender=b"", arrived_at=time.time() - 2 * hours)
    for ask in stage.asks():
        ask.outcome(*[SENT if r.startswith(b"sent") else DEFERRED for r in ask.recipients])
    await stage.until(lambda: len(stage.notices()) == 2)
    asks = stage.asks("bounce")
    assert sorted(item.recipient.address for ask in asks for item in ask.message.recipients) == [
        b"null@x.example", b"old@x.example",
    ]  # fmt: skip
    assert f"{old.queue_id}: from=<from@x.example>, status=expired, returned to sender" in stage.log
    for ask in asks:
        ask.answer(NoticeReply(True))
    await stage.until(lambda: not stage.qmgr.active)
    assert left(only(stage)) == [b"young@x.example"]


@on_stage(delay_warning_time="1h")
async def test_one_delay_warning(stage: Stage) -> None:
    recipients = [
        Recipient(b"plain@x.example"),
        Recipient(b"never@x.example", notify=NOTIFY_NEVER),
        Recipient(b"delay@x.example", notify=NOTIFY_DELAY | NOTIFY_FAILURE),
        Recipient(b"failure@x.example", notify=NOTIFY_FAILURE),
    ]
    await stage.arrive(*recipients, arrived_at=time.time() - 4000)
    stage.asks()[0].outcome(DEFERRED)
    assert await answer_notice(stage, "defer") == [b"plain@x.example", b"delay@x.example"]
    for _ in range(2):
        await stage.until(lambda: not stage.qmgr.active)
        assert only(stage).envelope.warned
        stage.qmgr.deferred.flush()
        await stage.until(lambda: stage.context.asked)
        stage.asks()[0].outcome(DEFERRED)
        await stage.settle()
        assert stage.notices("defer") == []
    await stage.until(lambda: not stage.qmgr.active)


@on_stage(delay_warning_time="1h")
async def test_no_delay_warning(stage: Stage) -> None:
    await stage.arrive(b"young@x.example", arrived_at=time.time() - 3000)
    await stage.arrive(b"null@x.example", sender=b"", arrived_at=time.time() - 4000)
    for ask in stage.asks():
        ask.outcome(DEFERRED)
    await stage.until(lambda: not stage.qmgr.active)
    assert stage.notices("defer") == []


@on_stage(delay_warning_time="1h")
async def test_a_delay_warning_that_fails_is_tried_again(stage: Stage) -> None:
    await stage.arrive(b"a@x.example", arrived_at=time.time() - 4000)
    stage.asks()[0].outcome(DEFERRED)
    await answer_notice(stage, "defer", ok=False)
    await stage.until(lambda: not stage.qmgr.active)
    assert not only(stage).envelope.warned


@on_stage()
async def test_notify_bits_of_failures(stage: Stage) -> None:
    await stage.arrive(
        Recipient(b"plain@x.example"),
        Recipient(b"never@x.example", notify=NOTIFY_NEVER),
        Recipient(b"success@x.example", notify=NOTIFY_SUCCESS),
        Recipient(b"failure@x.example", notify=NOTIFY_FAILURE | NOTIFY_SUCCESS),
    )
    stage.asks()[0].outcome(BOUNCED)
    assert await answer_notice(stage) == [b"plain@x.example", b"failure@x.example"]
    assert stage.qmgr.active == {}


@on_stage()
async def test_nobody_wants_to_know(stage: Stage) -> None:
    envelope = await stage.arrive(Recipient(b"never@x.example", notify=NOTIFY_NEVER))
    stage.asks()[0].outcome(BOUNCED)
    await stage.settle()
    assert stage.notices() == [] and stage.qmgr.active == {}
    assert f"{envelope.queue_id}: removed" in stage.log


@on_stage()
async def test_success_reports(stage: Stage) -> None:
    await stage.arrive(Recipient(b"a@x.example", notify=NOTIFY_SUCCESS), Recipient(b"b@x.example"))
    stage.asks()[0].outcome(SENT)
    assert await answer_notice(stage, "trace") == [b"a@x.example"]
    assert stage.qmgr.active == {}
    await stage.arrive(b"c@x.example", flags=int(ContentFlag.VERBOSE_TRACE))
    stage.asks()[0].outcome(SENT)
    assert await answer_notice(stage, "trace", ok=False) == [b"c@x.example"]
    assert stage.qmgr.active == {}, "a report that cannot be made is not worth a second delivery"


@on_stage()
async def test_an_old_master_cf_without_trace_and_defer(stage: Stage) -> None:
    stage.context.missing |= {"trace", "defer"}
    await stage.arrive(Recipient(b"a@x.example", notify=NOTIFY_SUCCESS))
    stage.asks()[0].outcome(SENT)
    assert await answer_notice(stage, "bounce") == [b"a@x.example"]


@on_stage()
async def test_verify_reports_and_delivers_nothing_twice(stage: Stage) -> None:
    """sendmail -bv: whatever the outcome, one report, no bounce, nothing deferred."""
    await stage.arrive(b"s@x.example", b"d@x.example", b"b@x.example", flags=int(ContentFlag.TRACE))
    stage.asks()[0].outcome(SENT, DEFERRED, BOUNCED)
    assert await answer_notice(stage, "trace") == [b"s@x.example", b"d@x.example", b"b@x.example"]
    await stage.until(lambda: not stage.qmgr.active)
    assert stage.files("deferred") == [] and stage.notices() == []


@on_stage(minimal_backoff_time="300s", maximal_backoff_time="4000s")
async def test_back_off(stage: Stage) -> None:
    settings = stage.qmgr.settings
    now = time.time()
    assert [next_delay(now - age, now, settings) for age in (0, 299, 1000, 90000)] == [300, 300, 1000, 4000]
    await stage.arrive(b"a@x.example", arrived_at=now - 1000)
    stage.asks()[0].outcome(DEFERRED)
    await stage.until(lambda: not stage.qmgr.active)
    assert 995 <= only(stage).envelope.next_try_at - now <= 1010
    assert list(stage.qmgr.store.due(now + 900)) == []


@on_stage()
async def test_results_while_others_are_under_way_are_on_disk(stage: Stage) -> None:
    """A kill between two answers repeats only what had none."""
    from estafeta.spool import scan

    await stage.arrive(b"a@x.example", b"b@y.example")
    one, two = stage.asks()
    one.outcome(SENT)
    await stage.settle()
    (queued,) = scan.list_queue(str(stage.directory), "incoming")
    assert left(queued) == [b"b@y.example"]
    two.outcome(SENT)
    await stage.settle()
    assert list(scan.list_queue(str(stage.directory), "incoming")) == []

"""From recipients to requests: windows, limits, dead destinations and transports, agents that go away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import DeliverReply, Outcome, RecipientResult
from support.queue_manager import Stage
from support.scenes import on_stage

SENT, DEFERRED, BOUNCED = Outcome.SENT, Outcome.DEFERRED, Outcome.BOUNCED

@on_stage()
async def test_recipients_of_one_destination_go_together(stage: Stage) -> None:
    await stage.arrive(b"a@x.example", b"b@y.example", b"c@x.example")
    asks = stage.asks()
    assert [(ask.message.nexthop, ask.recipients) for ask in asks] == [
        ("x.example", [b"a@x.example", b"c@x.example"]),
        ("y.example", [b"b@y.example"]),
    ]
    for ask in asks:
        ask.outcome(SENT)
    assert stage.qmgr.active == {}


@on_stage(default_destination_recipient_limit="2")
async def test_recipient_limit(stage: Stage) -> None:
    await stage.arrive(*(b"%d@x.example" % n for n in range(5)))
    assert [len(ask.recipients) for ask in stage.asks()] == [2, 2, 1]


@on_stage(smtp_destination_recipient_limit="1", default_destination_concurrency_limit="1")
async def test_recipient_limit_one_makes_the_recipient_the_destination(stage: Stage) -> None:
    await stage.arrive(b"a@x.example", b"b@x.example")
    await stage.arrive(b"a@x.example")
    asks = stage.asks()
    assert [ask.recipients for ask in asks] == [[b"a@x.example"], [b"b@x.example"]]
    asks[1].outcome(SENT)
    assert stage.asks() == []
    asks[0].outcome(SENT)
    assert [ask.recipients for ask in stage.asks()] == [[b"a@x.example"]]


@on_stage(initial_destination_concurrency="2", default_destination_concurrency_limit="3")
async def test_the_window_opens_to_the_limit(stage: Stage) -> None:
    for n in range(10):
        await stage.arrive(b"%d@x.example" % n)
    asks = stage.asks()
    assert len(asks) == 2
    total = 0
    while asks:
        assert len(asks) <= 3
        total += len(asks)
        for ask in asks:
            ask.outcome(SENT)
        asks = stage.asks()
    assert total == 10


@on_stage(initial_destination_concurrency="1", default_destination_concurrency_limit="1")
async def test_order_is_kept(stage: Stage) -> None:
    for n in range(5):
        await stage.arrive(b"%d@x.example" % n)
    got = []
    while asks := stage.asks():
        (ask,) = asks
        got += ask.recipients
        ask.outcome(SENT)
    assert got == [b"%d@x.example" % n for n in range(5)]


@on_stage(initial_destination_concurrency="1")
async def test_a_dead_destination_defers_through_retry(stage: Stage) -> None:
    for n in range(3):
        await stage.arrive(b"%d@x.example" % n)
    await stage.arrive(b"other@y.example")
    first, other = stage.asks()
    first.outcome(DEFERRED, dead="connect to x.example: Connection refused")
    other.outcome(SENT)
    await stage.arrive(b"late@x.example")  # dead destinations take nothing for a while
    assert stage.asks() == []
    retried = []
    while retries := stage.asks("retry"):
        for ask in retries:
            assert ask.message.nexthop == "4.4.1 delivery temporarily suspended: connect to x.example: Connection refused"
            retried += ask.recipients
            ask.outcome(DEFERRED)
    assert retried == [b"1@x.example", b"2@x.example", b"late@x.example"]
    await stage.until(lambda: not stage.qmgr.active, "everything deferred")
    assert len(stage.files("deferred")) == 4


@on_stage(initial_destination_concurrency="1", minimal_backoff_time="1s")
async def test_a_dead_destination_lives_again(stage: Stage) -> None:
    await stage.arrive(b"a@x.example")
    stage.asks()[0].outcome(DEFERRED, dead="down")
    destination = stage.qmgr.dispatcher._destinations["smtp", "x.example"]
    assert destination.dead_until > 0
    destination.dead_until = 0.001  # long ago
    await stage.arrive(b"b@x.example")
    (ask,) = stage.asks()
    ask.outcome(SENT)
    assert destination.dead_until == 0 and destination.window.size >= 1


@on_stage(initial_destination_concurrency="1")
async def test_flush_revives(stage: Stage) -> None:
    await stage.arrive(b"a@x.example")
    stage.asks()[0].outcome(DEFERRED, dead="down")
    await stage.until(lambda: not stage.qmgr.active)
    stage.qmgr.deferred.flush()
    await stage.until(lambda: stage.context.asked, "the flushed message goes out again")
    (ask,) = stage.asks()
    ask.outcome(SENT)
    assert stage.files("deferred") == []


@on_stage()
async def test_an_agent_that_dies_defers_what_it_had(stage: Stage) -> None:
    await stage.arrive(b"a@x.example", b"b@x.example")
    stage.asks()[0].answer(ServiceLost("connection to private/smtp lost"))
    (retry,) = stage.asks("retry")
    assert retry.message.nexthop == "4.3.0 unknown mail transport error"
    assert retry.recipients == [b"a@x.example", b"b@x.example"]
    await stage.arrive(b"c@x.example")
    assert len(stage.asks()) == 1, "the transport is tried again at once: the master restarts it"
    retry.outcome(DEFERRED)
    await stage.until(lambda: len(stage.qmgr.active) == 1)


@on_stage(transport_retry_time="1h")
async def test_an_agent_that_is_not_there(stage: Stage) -> None:
    for n in range(8):
        await stage.arrive(b"%d@x.example" % n)
    stage.asks()[0].answer(ServiceLost("connect to private/smtp: No such file or directory"))
    await stage.arrive(b"late@elsewhere.example")
    retries = stage.asks("retry")
    assert len(retries) == 5  # the one that failed, three that waited, the late one
    assert {ask.message.nexthop for ask in retries} == {"4.3.0 mail transport unavailable"}
    stage.qmgr.dispatcher.revive_all()
    await stage.arrive(b"later@elsewhere.example")
    assert [ask.recipients for ask in stage.asks()] == [[b"later@elsewhere.example"]]


@on_stage()
async def test_without_retry_service_error_defers(stage: Stage) -> None:
    stage.context.missing.add("retry")
    await stage.arrive(b"a@x.example")
    stage.asks()[0].answer(ServiceLost("connect to private/smtp: No such file or directory"))
    assert len(stage.asks("error")) == 1


@on_stage()
async def test_even_retry_may_be_gone(stage: Stage) -> None:
    await stage.arrive(b"a@x.example")
    stage.asks()[0].answer(ServiceLost("connect to private/smtp: gone"))
    stage.asks("retry")[0].answer(ServiceLost("connect to private/retry: gone"))
    await stage.until(lambda: not stage.qmgr.active, "deferred all the same")
    (queued,) = stage.qmgr.store.due(float(1 << 40))
    assert not isinstance(queued, str)
    assert (queued.envelope.recipients[0].status, queued.envelope.recipients[0].reason) == (
        "4.3.0", "mail transport unavailable",
    )  # fmt: skip


@on_stage(defer_transports="smtp")
async def test_deferred_transports(stage: Stage) -> None:
    await stage.arrive(b"a@x.example")
    assert stage.asks() == []
    assert [ask.message.nexthop for ask in stage.asks("retry")] == ["4.3.2 deferred transport"]


@on_stage()
async def test_routes_that_fail(stage: Stage) -> None:
    await stage.arrive(b"a@fail.example", b"b@x.example")
    assert [ask.recipients for ask in stage.asks()] == [[b"b@x.example"]]
    assert [ask.message.nexthop for ask in stage.asks("retry")] == ["4.3.0 address resolver failure"]


@on_stage()
async def test_no_resolver(stage: Stage) -> None:
    stage.context.auto["rewrite"] = lambda _: ServiceLost("connect to private/rewrite: gone")
    await stage.arrive(b"a@x.example")
    assert [ask.message.nexthop for ask in stage.asks("retry")] == ["4.3.0 address resolver failure"]


@on_stage(smtp_destination_rate_delay="1s")
async def test_rate_delay(stage: Stage) -> None:
    for n in range(50):
        await stage.arrive(b"%d@x.example" % n)
    await stage.arrive(b"z@y.example")
    asks = stage.asks()
    assert [ask.message.nexthop for ask in asks] == ["x.example", "y.example"]
    asks[0].outcome(SENT)
    assert stage.asks() == []
    timers = [timer for timer in getattr(stage.context.loop, "_scheduled", ()) if "_pump" in repr(timer)]
    assert len(timers) <= 1, "one timer a destination, not one a message"
    destination = stage.qmgr.dispatcher._destinations["smtp", "x.example"]
    assert destination.window.limit == 1
    destination.not_before = 0.0
    stage.qmgr.dispatcher._pump_later(destination)
    assert [ask.recipients for ask in stage.asks()] == [[b"1@x.example"]]


@on_stage()
async def test_missing_results_are_deferrals(stage: Stage) -> None:
    await stage.arrive(b"a@x.example", b"b@x.example", b"c@x.example")
    stage.asks()[0].answer(DeliverReply([RecipientResult(1, SENT, "2.0.0", "ok")]))
    await stage.until(lambda: not stage.qmgr.active)
    (queued,) = stage.qmgr.store.due(float(1 << 40))
    assert not isinstance(queued, str)
    assert [r.address for r in queued.envelope.recipients] == [b"a@x.example", b"c@x.example"]
    assert queued.envelope.recipients[0].reason == "delivery agent gave no result"


@on_stage(initial_destination_concurrency="1", default_destination_concurrency_limit="1")
async def test_a_deleted_message_does_not_go_out(stage: Stage) -> None:
    first = await stage.arrive(b"a@x.example")
    second = await stage.arrive(b"b@x.example")
    stage.qmgr.active[second.queue_id].dropped = True
    stage.asks()[0].outcome(SENT)
    assert stage.asks() == []
    assert first.queue_id not in stage.qmgr.active and second.queue_id not in stage.qmgr.active


@on_stage()
async def test_content_filter(stage: Stage) -> None:
    await stage.arrive(b"a@x.example", b"b@y.example", content_filter="smtp:[127.0.0.1]:10025")
    (ask,) = stage.asks()
    assert (ask.message.nexthop, len(ask.recipients)) == ("[127.0.0.1]:10025", 2)
    await stage.arrive(b"a@x.example", content_filter="smtp:")
    assert stage.asks()[0].message.nexthop == "me.example"


@on_stage()
async def test_forgets_idle_destinations(stage: Stage) -> None:
    import estafeta.daemons.qmgr.dispatch as module

    known = stage.qmgr.dispatcher._destinations
    most = module._MAX_IDLE_DESTINATIONS
    from estafeta.daemons.qmgr.destination import new_destination

    for n in range(most + 1):
        known["smtp", str(n)] = new_destination("smtp", str(n), str(n), stage.qmgr.dispatcher.transport("smtp"))
    await stage.arrive(b"a@x.example")
    assert len(known) == 1


def test_every_recipient_gets_exactly_one_result(tmp_path: Path) -> None:
    """Any mixture of answers: what went in comes out, as sent, deferred or bounced, and nothing else."""
    import random

    async def run() -> None:
        parameters = {"default_destination_recipient_limit": "3", "initial_destination_concurrency": "2"}
        async with Stage(tmp_path, **parameters) as stage:
            chooser = random.Random(1)
            sent: list[bytes] = []
            bounced: list[bytes] = []
            everybody: list[bytes] = []

            def notice(message: Any) -> Any:
                from estafeta.ipc.messages import NoticeReply

                bounced.extend(item.recipient.address for item in message.recipients)
                return NoticeReply(True)

            stage.context.auto["bounce"] = notice
            for number in range(60):
                addresses = [b"m%d-%d@d%d.example" % (number, r, chooser.randrange(4)) for r in range(chooser.randrange(1, 9))]
                everybody += addresses
                await stage.arrive(*addresses)
                asks = stage.asks() + stage.asks("retry")
                chooser.shuffle(asks)
                now = chooser.randrange(6)
                stage.context.asked += asks[now:]
                for ask in asks[:now]:
                    _play(ask, chooser, sent)
            while asks := stage.asks() + stage.asks("retry"):
                for ask in asks:
                    _play(ask, chooser, sent)
                await stage.settle()
            await stage.until(lambda: not stage.qmgr.active, "all deferred")
            deferred = [
                r.address
                for queued in stage.qmgr.store.due(float(1 << 40))
                if not isinstance(queued, str)
                for i, r in enumerate(queued.envelope.recipients)
                if i not in queued.done
            ]
            assert len(sent) == len(set(sent)) and len(deferred) == len(set(deferred)) and len(bounced) == len(set(bounced))
            assert set(sent) | set(deferred) | set(bounced) == set(everybody)
            assert not set(sent) & (set(deferred) | set(bounced))
            assert sent and deferred and bounced

    asyncio.run(run())


def _play(ask: Any, chooser: Any, sent: list[bytes]) -> None:
    kind = chooser.randrange(12)
    if ask.service == "retry":
        ask.outcome(DEFERRED)
    elif kind == 0:
        ask.answer(ServiceLost("lost"))
    elif kind == 1:
        ask.outcome(DEFERRED, dead="down")
    else:
        outcomes = [chooser.choice((SENT, SENT, DEFERRED, BOUNCED)) for _ in ask.recipients]
        sent += [address for address, outcome in zip(ask.recipients, outcomes, strict=True) if outcome is SENT]
        ask.outcome(*outcomes)



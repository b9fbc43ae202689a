"""A queue manager on a real spool, with agents, bounce and trivial-rewrite that the test plays itself."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from estafeta.config.config import default_config
from estafeta.config.master_cf import MasterService
from estafeta.daemons.qmgr.service import Qmgr
from estafeta.ipc.channel import Reply, ServiceLost
from estafeta.ipc.messages import (
    AddressClass,
    DeliverReply,
    DeliverRequest,
    Enqueue,
    Envelope,
    Message,
    Notice,
    Outcome,
    Place,
    Recipient,
    RecipientResult,
    Resolve,
    Route,
)
from estafeta.service.context import Context
from estafeta.spool import layout
from estafeta.spool.journal import Journal
from estafeta.system.log import Log
from support.smtp_agent import MemorySink

CONTENT = b"Subject: x\r\n\r\nbody\r\n"


class Ask:
    """A request that waits for its answer."""

    def __init__(self, service: str, message: Any, callback: Callable[[Reply], None]) -> None:
        self.service = service
        self.message = message
        self._callback = callback

    def answer(self, reply: Reply) -> None:
        self._callback(reply)

    def outcome(self, *outcomes: Outcome, dead: str = "") -> None:
        """A result for each recipient (one outcome serves for all)."""
        assert isinstance(self.message, DeliverRequest)
        count = len(self.message.envelope.recipients)
        dsn = {Outcome.SENT: "2.0.0", Outcome.DEFERRED: "4.2.0", Outcome.BOUNCED: "5.1.1"}
        given = outcomes * count if len(outcomes) == 1 else outcomes
        results = [RecipientResult(n, o, dsn[o], o.name.lower()) for n, o in enumerate(given)]
        self.answer(DeliverReply(results, dead, "4.4.1" if dead else ""))

    @property
    def recipients(self) -> list[bytes]:
        """Whom the request is for."""
        return [recipient.address for recipient in self.message.envelope.recipients]


class FakeChannel:
    """Keeps what it is asked, or has ``auto`` answer at once."""

    def __init__(self, stage: FakeContext, name: str) -> None:
        self._stage = stage
        self._name = name

    def request(self, message: Message, callback: Callable[[Reply], None]) -> None:
        ask = Ask(self._name, message, callback)
        auto = self._stage.auto.get(self._name)
        if auto is None:
            self._stage.asked.append(ask)
        else:
            asyncio.get_running_loop().call_soon(lambda: callback(auto(message)))

    async def call(self, message: Message) -> Message:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.request(message, future.set_result)
        reply = await future
        if isinstance(reply, ServiceLost):
            raise reply
        return reply


class FakeContext(Context):
    """``auto`` has a function for each service that answers by itself; the others' requests gather in ``asked``."""

    def __init__(self, directory: Path, **parameters: str) -> None:
        config = default_config(str(directory)).with_overrides(
            {"myhostname": "me.example", "queue_directory": str(directory), **parameters}.items()
        )
        self.sink = MemorySink()
        service = MasterService("qmgr", "unix", True, True, False, 0, False, None, "qmgr", (), (), 0, False, 1)
        super().__init__(config, service, Log(self.sink, "postfix/qmgr"), 0)
        self.loop = asyncio.get_running_loop()
        self.directory = str(directory)
        self.asked: list[Ask] = []
        self.auto: dict[str, Callable[[Any], Reply]] = {"rewrite": to_smtp}
        self.missing: set[str] = set()

    @property
    def queue_directory(self) -> str:
        return self.directory

    def channel(self, name: str, **_: Any) -> Any:
        return FakeChannel(self, name)

    def has_service(self, name: str) -> bool:
        return name not in self.missing

    def take(self, service: str) -> list[Ask]:
        """The requests to a service so far."""
        mine = [ask for ask in self.asked if ask.service == service]
        self.asked = [ask for ask in self.asked if ask.service != service]
        return mine


def to_smtp(message: Resolve) -> Reply:
    """Everything goes to smtp, with the domain as next hop; ``fail.`` domains fail."""
    domain = message.address.rpartition(b"@")[2].decode()
    return Route("smtp", domain, message.address, AddressClass.DEFAULT, failed=domain.startswith("fail."))


class Stage:
    """``async with Stage(tmp_path) as stage``: a running queue manager."""

    def __init__(self, directory: Path, **parameters: str) -> None:
        self.directory = directory
        self.parameters = {"queue_run_delay": "1h", "minimal_backoff_time": "1h", **parameters}
        self._number = 0

    async def __aenter__(self) -> Stage:
        layout.prepare(str(self.directory))
        self.context = FakeContext(self.directory, **self.parameters)
        self.qmgr = Qmgr(self.context)
        self.qmgr.prepare()
        await self.qmgr.start()
        loop = asyncio.get_running_loop()
        self._journal = Journal(str(self.directory), loop.call_soon, loop.call_soon_threadsafe)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._journal.close()
        self.qmgr.dispatcher.in_flight = 0  # nobody waits for answers that the test never gave
        await self.qmgr.stop()

    @property
    def log(self) -> list[str]:
        return self.context.sink.lines

    async def store(self, *recipients: bytes, **fields: Any) -> tuple[Place, Envelope]:
        """A message in incoming/ of which the queue manager is not told."""
        self._number += 1
        envelope = Envelope(
            fields.pop("queue_id", f"{0xABC0000000 + self._number:X}"),
            **{"arrived_at": time.time(), "sender": b"from@x.example", **fields},
            recipients=[r if isinstance(r, Recipient) else Recipient(r) for r in recipients],
        )
        future: asyncio.Future[Place] = self.context.loop.create_future()
        self._journal.add(envelope, CONTENT, lambda place, error: future.set_result(place))  # type: ignore[arg-type]
        return await future, envelope

    async def arrive(self, *recipients: bytes | Recipient, **fields: Any) -> Envelope:
        """A message arrives; the queue manager has had time to route it."""
        place, envelope = await self.store(*recipients, **fields)  # type: ignore[arg-type]
        self.qmgr.arrived(place, envelope)
        await self.settle(8 + 4 * len(recipients))
        return envelope

    async def settle(self, turns: int = 8) -> None:
        """Let callbacks run."""
        for _ in range(turns):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait for the disk."""
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"timed out: {what}\n" + "\n".join(self.log))

    def asks(self, service: str = "smtp") -> list[Ask]:
        return self.context.take(service)

    def notices(self, service: str = "bounce") -> list[Notice]:
        return [ask.message for ask in self.context.asked if ask.service == service]

    def enqueued(self) -> list[Enqueue]:
        return [ask.message for ask in self.context.asked if ask.service == "cleanup"]

    def files(self, queue: str) -> list[str]:
        """Queue ids in deferred/, hold/ or (large ones) incoming/."""
        found = []
        for _, _, names in os.walk(self.directory / queue):
            found += [name for name in names if not name.startswith(("tmp-", "seg-", "."))]
        return sorted(found)


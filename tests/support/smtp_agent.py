"""An smtp(8) worker without a master: its deliveries, its log."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from estafeta.config.config import default_config
from estafeta.config.master_cf import MasterService
from estafeta.daemons.smtp.service import Smtp
from estafeta.ipc.messages import (
    ContentFlag,
    DeliverReply,
    DeliverRequest,
    Envelope,
    Message,
    Outcome,
    Place,
    Recipient,
)
from estafeta.service.context import Context
from estafeta.system.log import Log, Severity

BODY = b"From: a@b.example\r\nSubject: hi\r\n\r\nhello\r\n"


class MemorySink:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def emit(self, severity: Severity, tag: str, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None: ...


class _Connection:
    open = True

    def __init__(self) -> None:
        self.futures: dict[int, asyncio.Future[Message]] = {}

    def reply(self, number: int, message: Message) -> None:
        self.futures.pop(number).set_result(message)


class Agent:
    """A worker and what is needed to give it work."""

    def __init__(self, directory: Path, command: str = "smtp", limit: int = 0, **parameters: str) -> None:
        config = default_config(str(directory)).with_overrides(
            {
                "myhostname": "me.example",
                "inet_interfaces": "127.0.0.1",
                "inet_protocols": "ipv4",
                "queue_directory": str(directory),
                **parameters,
            }.items()
        )
        self.directory = directory
        service = MasterService("smtp", "unix", True, True, False, 0, False, None, command, (), (), 0, False, 1)
        self.sink = MemorySink()
        self.context = Context(config, service, Log(self.sink, "postfix/smtp"), limit)
        self.context.loop = asyncio.get_running_loop()
        self.smtp = Smtp(self.context)
        self.connection: Any = _Connection()
        self._number = 0
        os.chdir(directory)
        self.smtp.prepare()

    @property
    def lines(self) -> list[str]:
        return self.sink.lines

    def request(
        self, nexthop: str, *recipients: bytes, content: bytes = BODY, flags: int | None = None, **envelope: Any
    ) -> DeliverRequest:
        self._number += 1
        name = f"mail-{self._number}"
        (self.directory / name).write_bytes(content)
        if flags is None:
            flags = 0 if b"\r\n." in content or content.startswith(b".") else int(ContentFlag.NO_DOT_LINES)
        fields: dict[str, Any] = {"sender": b"from@b.example", "size": len(content), "flags": flags, **envelope}
        now = time.time()
        whole = Envelope(
            queue_id=f"Q{self._number}",
            arrived_at=now,
            recipients=[Recipient(address) for address in recipients or (b"to@d.example",)],
            **fields,
        )
        return DeliverRequest(Place(name, 0, len(content), 0, len(content)), whole, "smtp", nexthop, now, now)

    def submit(self, request: DeliverRequest) -> asyncio.Future[Message]:
        self._number += 1
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self.connection.futures[self._number] = future
        # As in a worker: from a callback of the loop, in no task.
        asyncio.get_running_loop().call_soon(self.smtp.on_message, self.connection, self._number, request)
        return future

    async def deliver(self, nexthop: str, *recipients: bytes, **more: Any) -> DeliverReply:
        reply = await asyncio.wait_for(self.submit(self.request(nexthop, *recipients, **more)), 20)
        assert isinstance(reply, DeliverReply)
        return reply


def outcomes(reply: DeliverReply) -> list[tuple[int, str, str, str]]:
    """(recipient, outcome, status, text) of a reply, sorted."""
    return sorted((r.index, Outcome(r.outcome).name.lower(), r.dsn, r.reason) for r in reply.results)

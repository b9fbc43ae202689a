"""anvil(8): the workers of smtpd tell it what their clients do, and it says how often that was.

Source: anvil(8). Invariant: a worker that is gone has no connections left here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from estafeta.daemons.anvil.counters import Counters
from estafeta.ipc.channel import Connection
from estafeta.ipc.messages import AnvilDisconnect, AnvilEvent, AnvilReply, Message, Refused
from estafeta.service.daemon import Daemon


class Anvil(Daemon):
    """anvil(8)."""

    max_workers = 1

    def prepare(self) -> None:
        config = self.config
        self._unit_s = config.seconds("anvil_rate_time_unit")
        self._report_s = config.seconds("anvil_status_update_time")
        self._counters = Counters(self._unit_s)
        self._of: dict[Connection, Counter[str]] = {}  # the open connections that each worker has told of

    async def start(self) -> None:
        self._timer = self.context.loop.create_task(self._tick())

    async def stop(self) -> None:
        self._timer.cancel()
        self._report()

    def on_lost(self, connection: Connection) -> None:
        for client, count in self._of.pop(connection, Counter[str]()).items():
            for _ in range(count):
                self._counters.disconnect(client)

    def on_message(self, connection: Connection, number: int, message: Message) -> None:
        if isinstance(message, AnvilEvent):
            count, rate = self._counters.event(message.kind, message.client, time.time())
            if message.kind == "connect":
                self._of.setdefault(connection, Counter())[message.client] += 1
            connection.reply(number, AnvilReply(count, rate))
        elif isinstance(message, AnvilDisconnect):
            own = self._of.get(connection)
            if own is not None and own[message.client] > 0:
                own[message.client] -= 1
                if not own[message.client]:
                    del own[message.client]
                self._counters.disconnect(message.client)
        else:
            connection.reply(number, Refused("anvil: unknown request"))

    async def _tick(self) -> None:
        next_report = time.monotonic() + self._report_s
        while True:
            await asyncio.sleep(min(self._unit_s, self._report_s) or 1)
            self._counters.forget_idle(time.time())
            if time.monotonic() >= next_report:
                next_report = time.monotonic() + self._report_s
                self._report()

    def _report(self) -> None:
        for what, peak in self._counters.report():
            when = time.strftime("%b %e %H:%M:%S", time.localtime(peak.at))
            rate = f"/{int(self._unit_s)}s" if what.endswith("rate") else ""
            whose = f" for ({peak.client})" if peak.client else ""
            self.log.info(f"statistics: max {what} {peak.value}{rate}{whose} at {when}")

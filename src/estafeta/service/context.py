"""What a service knows of the world: its configuration, its master.cf line, its log, and channels to the other services.

A daemon gets one Context and needs no globals. Socket paths are relative to the queue directory, which is every worker's
working directory, inside a jail or out of it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from estafeta.config.config import Config
from estafeta.config.master_cf import MasterService
from estafeta.ipc.channel import Channel
from estafeta.ipc.messages import Message
from estafeta.system.log import Log

CHANNEL_IDLE_S = 30.0


@dataclass
class Context:
    """See the module. ``client_limit``: how many clients this worker may serve at once (0: no limit)."""

    config: Config
    service: MasterService
    log: Log
    client_limit: int
    loop: asyncio.AbstractEventLoop = field(init=False)
    clients: int = 0
    on_clients: Callable[[], None] | None = None
    last_activity: float = field(default_factory=time.monotonic)
    _channels: dict[str, Channel] = field(default_factory=dict)
    _number: int = 0

    @property
    def queue_directory(self) -> str:
        """The queue directory as seen from inside the jail."""
        return "."

    def next_number(self) -> int:
        """A number for the brackets of a log line: unique among the sessions and deliveries of all workers."""
        self._number = (self._number + 1) % 1000
        return self.log.number * 1000 + self._number

    def client_opened(self) -> None:
        """A client is being served."""
        self.clients += 1
        self.last_activity = time.monotonic()
        if self.on_clients is not None:
            self.on_clients()

    def client_closed(self) -> None:
        """A client is gone."""
        self.clients -= 1
        self.last_activity = time.monotonic()
        if self.on_clients is not None:
            self.on_clients()

    def channel(
        self,
        name: str,
        *,
        on_connect: Callable[[], Message | None] | None = None,
        on_message: Callable[[Message], None] | None = None,
    ) -> Channel:
        """The shared channel to service ``name`` (made on first use, kept)."""
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = Channel(
                socket_path(name), warn=self.log.warning, on_connect=on_connect, on_message=on_message
            )
        return channel

    def has_service(self, name: str) -> bool:
        """True if master.cf has the service (its socket is there)."""
        return os.path.exists(socket_path(name))

    def close_unused_channels(self) -> None:
        """End connections that were not used since the last call, so that the services behind them may retire."""
        for channel in self._channels.values():
            channel.close_if_unused()

    def close_channels(self) -> None:
        """End every connection to other services."""
        for channel in self._channels.values():
            channel.close()


def socket_path(name: str) -> str:
    """The socket of a service below the queue directory: public/ if it is there, else private/."""
    public = "public/" + name
    return public if os.path.exists(public) else "private/" + name

"""The shape of a service: what the worker skeleton calls, in the order in which it calls it.

``prepare`` runs with the privileges of the master, before the jail; ``start`` runs on the loop, after it. A service that talks
frames implements ``on_message``; one that speaks a protocol of its own (smtpd) implements ``on_socket``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from typing import Any

from estafeta.ipc.channel import Connection
from estafeta.ipc.messages import Message, Refused
from estafeta.service.context import Context
from estafeta.service.immediate_task import run_or_task
from estafeta.system.privilege import is_root
from estafeta.tables.table import OpenOptions


class Daemon:
    """Base of every service."""

    runs_as_root = False  # local, pipe, virtual: master.cf must say unpriv=n
    may_jail = True  # local, virtual and pipe refuse a jail
    max_workers = 0  # 0: one a core
    # maxproc limits the connections of smtpd; a frame connection is that of another process, shared by many requests
    limits_connections = False
    stays = False  # never retires for idleness (qmgr, pickup)

    def __init__(self, context: Context) -> None:
        self.context = context
        self.config = context.config
        self.log = context.log
        self.retiring = False  # a successor with another configuration is there
        self._connections: set[Connection] = set()

    def prepare(self) -> None:
        """Open what will be needed in the jail; raises ConfigError or OSError, which stop the worker with a message."""

    def table_options(self) -> OpenOptions:
        """How this service opens its tables, in ``prepare``."""
        config = self.config
        jailed = self.context.service.chroot and is_root()
        return OpenOptions(
            warn=self.log.warning, utf8=config.bool("smtputf8_enable"), parameter=config.lookup, jailed=jailed
        )

    async def start(self) -> None:
        """The loop runs; make channels, timers, threads."""

    def on_socket(self, link: socket.socket, peer: Any) -> None:
        """A client connected. The default reads frames."""
        context = self.context
        context.client_opened()

        def lost(connection: Connection) -> None:
            context.client_closed()
            self._connections.discard(connection)
            self.on_lost(connection)

        connection = Connection(self._guard, warn=self.log.warning, on_lost=lost)
        self._connections.add(connection)
        context.loop.create_task(self._adopt(link, connection))

    async def _adopt(self, link: socket.socket, connection: Connection) -> None:
        await self.context.loop.connect_accepted_socket(lambda: _TriggerOrFrames(self, connection), link)

    def _guard(self, connection: Connection, number: int, message: Message) -> None:
        try:
            self.on_message(connection, number, message)
        except Exception as error:  # noqa: BLE001 - the worker goes on; the caller gets a temporary failure
            self.unexpected(error)
            if number:
                connection.reply(number, Refused(f"unexpected {type(error).__name__}"))

    def unexpected(self, error: BaseException) -> None:
        """Log an exception that nobody expected, with the place where it happened."""
        place = ""
        trace = error.__traceback__
        while trace is not None:
            place = f" at {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
            trace = trace.tb_next
        self.log.error(f"unexpected {type(error).__name__}: {error}{place}")

    def run_soon(self, work: Coroutine[Any, Any, None]) -> None:
        """Drive ``work`` until it first waits; what is left of it goes on as a task. Exceptions are logged."""
        run_or_task(self.context.loop, self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the worker goes on
            self.unexpected(error)

    def answer(self, connection: Connection, number: int, work: Coroutine[Any, Any, Message]) -> None:
        """Reply with the result of ``work``; what nobody expected is a temporary failure for the caller."""

        async def finish() -> None:
            try:
                reply = await work
            except Exception as error:  # noqa: BLE001 - temporary for the caller, in the log for us
                self.unexpected(error)
                reply = Refused(f"unexpected {type(error).__name__}")
            connection.reply(number, reply)

        run_or_task(self.context.loop, finish())

    def on_message(self, connection: Connection, number: int, message: Message) -> None:
        """A frame came; answer with ``connection.reply`` now or later (number 0 wants no answer)."""
        connection.reply(number, Refused("unknown request"))

    def on_lost(self, connection: Connection) -> None:
        """A frame client went away."""

    def on_trigger(self, letters: bytes) -> None:
        """Somebody (the master's timer, postkick) sent a trigger."""

    def reload(self) -> bool:
        """Take a new configuration in place and return True, or return False to be replaced by a new worker."""
        return False

    def at_limit(self) -> None:
        """The worker has all the clients that its share of maxproc allows."""

    def retire(self) -> None:
        """The worker will be replaced: peers are asked to finish what is under way and to connect anew."""
        self.retiring = True
        for connection in list(self._connections):
            connection.retire()

    def is_busy(self) -> bool:
        """True while there is work that a graceful end waits for."""
        return self.context.clients > 0

    def close_connections(self) -> None:
        """Send what is still to be answered and say good-bye."""
        for connection in list(self._connections):
            if connection.open:  # else it has been accepted, but the loop has not taken it over yet
                connection.flush()
                connection.transport.close()

    def in_hand(self) -> bool:
        """True while something is under way that would be done twice if the worker ended now; it gets a few seconds."""
        return False

    async def stop(self) -> None:
        """The worker ends: finish or give back what is under way."""


class _TriggerOrFrames(asyncio.Protocol):
    """A unix stream connection: frames start with a zero byte (their length), triggers with a letter."""

    def __init__(self, daemon: Daemon, connection: Connection) -> None:
        self._daemon = daemon
        self._connection = connection
        self._known = False

    def connection_made(self, transport: Any) -> None:
        self._connection.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._known:
            if data[0] != 0:
                self._daemon.on_trigger(data)
                return
            self._known = True
        self._connection.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

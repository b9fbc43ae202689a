"""The life of one worker process: fork, prepare, jail, listen, serve, drain, end.

Called by the master in a fresh child. Exit status 0: retired; 1: cannot run (the master throttles the service).
Signals: TERM ends at once after ``Daemon.stop``; HUP takes a new configuration, or stops accepting and ends when the clients
have gone (but not later than a minute), so that reload loses nothing.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import time
from dataclasses import dataclass

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.config.master_cf import MasterService
from estafeta.service.context import CHANNEL_IDLE_S, Context
from estafeta.service.daemon import Daemon
from estafeta.system import privilege
from estafeta.system.log import FileSink, Log, Sink

WORKER_SIGNALS = (signal.SIGHUP, signal.SIGTERM)  # blocked from the fork until the loop has handlers for them
DRAIN_S = 60.0
FINISH_S = 5.0  # what is in hand at SIGTERM may take this long
BUSY_CLIENTS = 8  # from this many clients on the master may start a second worker
CALM_CLIENTS = 1  # and with so few the worker is readily available again


@dataclass
class WorkerSpec:
    """What the master hands to a new worker."""

    daemon_class: type[Daemon]
    config: Config
    service: MasterService
    sink: Sink
    listeners: list[socket.socket]
    status_fd: int  # a socket to the master: 'a' available, 'b' busy; the master sends a new log file
    life_fd: int  # a pipe that ends when the master does
    client_limit: int
    program: str  # postfix/smtpd


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class Worker:
    """One running worker."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.log = Log(spec.sink, spec.program)
        self.context = Context(spec.config, spec.service, self.log, spec.client_limit)
        self.daemon = spec.daemon_class(self.context)
        self._accepting = False
        self._draining = False
        self._status = b"a"
        self._done: asyncio.Future[None] | None = None

    def run(self) -> int:
        """Serve until retired; the exit status."""
        try:
            self._enter()
        except (ConfigError, OSError) as error:
            self.log.fatal(str(error))
            return 1
        loop = new_event_loop()
        asyncio.set_event_loop(loop)
        self.context.loop = loop
        self.log.schedule = loop.call_soon
        loop.set_exception_handler(self._loop_error)
        gc.set_threshold(20000, 20, 50)
        try:
            loop.run_until_complete(self._serve(loop))
        except (ConfigError, OSError) as error:
            self.log.schedule = None
            self.log.fatal(str(error))
            return 1
        finally:
            self.log.schedule = None
            self.log.flush()
        return 0

    def _enter(self) -> None:
        spec = self.spec
        if spec.service.chroot and not self.daemon.may_jail:
            raise ConfigError(f"service {spec.service.name}: {spec.service.command} cannot run in a chroot jail: use chroot=n")
        if self.daemon.runs_as_root and spec.service.unpriv and privilege.is_root():
            raise ConfigError(f"service {spec.service.name}: {spec.service.command} needs unprivileged=n in master.cf")
        self.daemon.prepare()
        jail = spec.config.get("queue_directory") if spec.service.chroot else None
        user = None
        if spec.service.unpriv and privilege.is_root():
            owner = spec.config.get("mail_owner")
            user = privilege.find_user(owner)
            if user is None:
                raise ConfigError(f"main.cf: mail_owner: unknown user {owner}")
        privilege.drop_for_good(user, jail)

    def _loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            self.daemon.unexpected(error)
        else:
            self.log.error(f"unexpected: {context.get('message')}")

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        self._done = loop.create_future()
        for number, action in ((signal.SIGTERM, self._finish), (signal.SIGHUP, self._reload)):
            loop.add_signal_handler(number, action)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WORKER_SIGNALS)
        await self.daemon.start()
        self.context.on_clients = self._clients_changed
        self._accept_on()
        loop.add_reader(self.spec.life_fd, self._finish)
        loop.add_reader(self.spec.status_fd, self._from_master)
        timer = loop.create_task(self._watch())
        try:
            await self._done
        finally:
            timer.cancel()
            self._accept_off()
            deadline = time.monotonic() + FINISH_S
            while self.daemon.in_hand() and time.monotonic() < deadline:
                await asyncio.sleep(0.005)
            await self.daemon.stop()
            self.daemon.close_connections()
            self.context.close_channels()
            await asyncio.sleep(0)

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _from_master(self) -> None:
        """A new log file after a rotation, or the end of the master."""
        with socket.socket(fileno=os.dup(self.spec.status_fd)) as link:
            try:
                data, descriptors, _, _ = socket.recv_fds(link, 16, 1)
            except OSError:
                return
        if not data:
            self.context.loop.remove_reader(self.spec.status_fd)
        for descriptor in descriptors:
            if isinstance(self.spec.sink, FileSink):
                self.spec.sink.continue_in(descriptor)
            else:
                os.close(descriptor)

    def _reload(self) -> None:
        try:
            if self.daemon.reload():
                return
        except (ConfigError, OSError) as error:
            self.log.error(f"reload: {error}")
            return
        if not self._draining:
            self._draining = True
            self._accept_off()
            self.daemon.retire()
            self.context.loop.create_task(self._drain())

    async def _drain(self) -> None:
        deadline = time.monotonic() + DRAIN_S
        while (self.daemon.is_busy() or self.context.clients) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        self._finish()

    async def _watch(self) -> None:
        """Retire after max_idle seconds without a client; let go of services that were not asked for a while."""
        context = self.context
        max_idle_s = self.spec.config.seconds("max_idle")
        channels_at = time.monotonic()
        while True:
            await asyncio.sleep(min(5.0, max_idle_s))
            now = time.monotonic()
            if now - channels_at >= min(CHANNEL_IDLE_S, max_idle_s):
                channels_at = now
                context.close_unused_channels()
            idle = now - context.last_activity
            if not self.daemon.stays and not self.daemon.is_busy() and not context.clients and idle >= max_idle_s:
                self._finish()

    # -- accepting ----------------------------------------------------------------------------------------------------

    def _clients_changed(self) -> None:
        context = self.context
        limited = self.daemon.limits_connections and context.client_limit > 0
        full = limited and context.clients >= context.client_limit
        if full and self._accepting:
            self._accept_off()
            self.daemon.at_limit()
        elif not full and not self._accepting and not self._draining:
            self._accept_on()
        status = self._status
        if full or context.clients >= BUSY_CLIENTS:
            status = b"b"
        elif context.clients <= CALM_CLIENTS:
            status = b"a"
        if status != self._status:
            self._status = status
            try:
                os.write(self.spec.status_fd, status)
            except OSError:
                pass

    def _accept_on(self) -> None:
        if not self._accepting:
            self._accepting = True
            for listener in self.spec.listeners:
                self.context.loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept_off(self) -> None:
        if self._accepting:
            self._accepting = False
            for listener in self.spec.listeners:
                self.context.loop.remove_reader(listener.fileno())

    def _accept(self, listener: socket.socket) -> None:
        if listener.type == socket.SOCK_DGRAM:
            try:
                self.daemon.on_trigger(listener.recv(65536))
            except OSError:
                pass
            return
        try:
            link, peer = listener.accept()
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                self.log.warning(f"accept: {error}")
            return
        link.setblocking(False)
        try:
            self.daemon.on_socket(link, peer)
        except Exception as error:  # noqa: BLE001 - one bad connection must not end the worker
            self.daemon.unexpected(error)
            link.close()


def reset_after_fork() -> None:
    """Make a forked child independent of its parent: signal handlers, wake-up descriptor, standard input."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def exit_now(status: int) -> None:
    """End a forked child without running the parent's exit handlers."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

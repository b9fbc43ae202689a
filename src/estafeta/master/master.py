"""The master: owns the listening sockets, starts workers when there is work, wakes services up, reaps and throttles.

Source: master(8), master(5). It runs no event loop and no thread, because it forks: a plain select over sockets that nobody
serves readily, the workers' status pipes, a signal pipe and the nearest wake-up.

Invariants: workers hold the reading end of a pipe whose writing end only the master has, so they end when it dies, however it
dies; one master a queue directory, by the lock on ``pid/master.pid``.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable

from estafeta.config.config import Config, load_config
from estafeta.config.errors import ConfigError
from estafeta.config.jail_check import prepare_jail
from estafeta.config.master_cf import MasterService, jails_by_default, load_master_cf
from estafeta.master.child import ServiceState, wants_listening, worker_share, workers_for
from estafeta.master.listen import open_listeners
from estafeta.master.preload import preload
from estafeta.master.renewal import CHECK_S, Renewal
from estafeta.master.running import Running, find_daemon, socket_owner
from estafeta.master.verify import verify_configuration
from estafeta.service.daemon import Daemon
from estafeta.service.worker import WORKER_SIGNALS, Worker, WorkerSpec, exit_now, reset_after_fork
from estafeta.system import privilege
from estafeta.system.log import FileSink, Log, Sink, open_sink

STOP_S = 10.0
RESTART_DELAY_S = 1.0


class Master:
    """See the module."""

    def __init__(self, config: Config, sink: Sink, *, cores: int) -> None:
        self.config = config
        self.sink = sink
        self.cores = cores
        self.log = Log(sink, config.get("syslog_name") + "/master")
        self.running: dict[tuple[str, str], Running] = {}
        self._workers: dict[int, Running] = {}
        self._signals: list[int] = []
        self._stopping = False
        self._renewal_at = 0.0
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._life_read, self._life_write = os.pipe2(os.O_CLOEXEC)
        self._close_in_child: list[int] = []

    # -- start and stop -----------------------------------------------------------------------------------------------

    def open(self, keep_closed_in_child: list[int]) -> None:
        """Open every socket; raises ConfigError or OSError, and nothing has been started then."""
        self._close_in_child = keep_closed_in_child
        self._apply(self.config)
        preload(self.log.warning)
        version = self.config.get("mail_version")
        self.log.info(f"daemon started -- version {version}, configuration {self.config.directory}")
        gc.collect()
        gc.freeze()

    def close_in_child(self, descriptors: list[int]) -> None:
        """Descriptors that workers must not inherit."""
        self._close_in_child = descriptors

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._note_signal)
        while not self._stopping:
            try:
                self._turn()
            except Exception as error:  # noqa: BLE001 - the mail system must not die of one bad turn
                self.log.error(f"unexpected {type(error).__name__}: {error}")
                time.sleep(0.1)
        self._stop_workers()

    def _note_signal(self, number: int, frame: object) -> None:
        self._signals.append(number)

    def _turn(self) -> None:
        now = time.monotonic()
        readers: dict[int, Callable[[], None]] = {self._wake_read: self._drain_wake}
        deadline = now + 60.0
        if any(entry.renewal is not None for entry in self.running.values()):
            deadline = min(deadline, self._renew(now))
        for entry in self.running.values():
            for pid, descriptor in entry.status_fds.items():
                readers[descriptor] = lambda entry=entry, pid=pid: self._read_status(entry, pid)  # type: ignore[misc]
            if wants_listening(entry.state, now):
                for listener in entry.listeners:
                    readers[listener.fileno()] = lambda entry=entry: self._start_worker(entry)  # type: ignore[misc]
            elif entry.state.throttled_until > now:
                deadline = min(deadline, entry.state.throttled_until)
            deadline = min(deadline, self._tick(entry, now))
        poller = select.poll()
        for descriptor in readers:
            poller.register(descriptor, select.POLLIN)
        for descriptor, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000 + 1):
            readers[descriptor]()
        self._handle_signals()

    def _renew(self, now: float) -> float:
        """Replace the workers whose certificates were renewed; when to look again."""
        if now >= self._renewal_at:
            self._renewal_at = now + CHECK_S
            for entry in self.running.values():
                if entry.renewal is not None and entry.renewal.due(self.log.warning):
                    self.log.info(f"{entry.service.name}/{entry.service.type}: certificate files have changed: new workers")
                    for pid in entry.slots:
                        _kill(pid, signal.SIGHUP)
                    entry.retired.update(entry.slots)
                    entry.state.available.clear()
                    entry.state.busy.clear()
        return self._renewal_at

    def _tick(self, entry: Running, now: float) -> float:
        """Do what is due for a service; the time when it wants to be looked at again."""
        deadline = now + 60.0
        wakeup_s = entry.service.wakeup_s
        if wakeup_s > 0:
            if now >= entry.next_wakeup:
                entry.next_wakeup = now + wakeup_s
                if entry.state.workers or not entry.service.wakeup_conditional:
                    self._wake(entry, now)
            deadline = min(deadline, entry.next_wakeup)
        if entry.wanted_at:
            if entry.state.workers:
                entry.wanted_at = 0.0
            elif now >= max(entry.wanted_at, entry.state.throttled_until):
                entry.wanted_at = 0.0
                self._start_worker(entry)
            else:
                deadline = min(deadline, max(entry.wanted_at, entry.state.throttled_until))
        return deadline

    def _wake(self, entry: Running, now: float) -> None:
        if not entry.state.workers and now >= entry.state.throttled_until:
            self._start_worker(entry)
        for listener in entry.listeners:
            if listener.family != socket.AF_UNIX:
                continue
            with socket.socket(socket.AF_UNIX, listener.type) as link:
                link.setblocking(False)
                try:
                    link.connect(listener.getsockname())
                    link.send(b"W")
                except OSError as error:
                    self.log.warning(f"wake-up of {entry.service.name}: {error}")

    def _drain_wake(self) -> None:
        try:
            os.read(self._wake_read, 512)
        except BlockingIOError:
            pass

    def _handle_signals(self) -> None:
        signals, self._signals = self._signals, []
        for number in dict.fromkeys(signals):
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                self._reload()
            else:
                self.log.info(f"terminating on signal {number}")
                self._stopping = True

    def _stop_workers(self) -> None:
        for entry in self.running.values():
            for listener in entry.listeners:
                listener.close()
        for pid in self._workers:
            _kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while self._workers and time.monotonic() < deadline:
            self._reap()
            if self._workers:
                time.sleep(0.01)
        for pid in list(self._workers):
            self.log.warning(f"process {pid} does not end: killed")
            _kill(pid, signal.SIGKILL)
        while self._workers:
            self._reap()
            time.sleep(0.005)
        self._remove_sockets()
        self.log.flush()

    def _remove_sockets(self) -> None:
        for entry in self.running.values():
            if entry.service.type not in ("inet", "pass"):
                folder = "private" if entry.service.private else "public"
                try:
                    os.unlink(os.path.join(self.config.get("queue_directory"), folder, entry.service.name))
                except OSError:
                    pass

    # -- workers ------------------------------------------------------------------------------------------------------

    def _start_worker(self, entry: Running) -> None:
        state = entry.state
        if state.workers >= state.max_workers:
            return
        taken = set(entry.slots.values())
        slot = next(number for number in range(state.max_workers + len(taken) + 1) if number not in taken)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        status_read, status_write = ours.detach(), theirs.detach()
        self.log.flush()
        # The child unblocks them when it can act on them: a reload or stop at this moment is not lost and does not kill.
        signal.pthread_sigmask(signal.SIG_BLOCK, WORKER_SIGNALS)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WORKER_SIGNALS)
        else:
            os.close(status_read)
            self._child(entry, slot, status_write)
        os.close(status_write)
        entry.slots[pid] = slot
        entry.status_fds[pid] = status_read
        state.available.add(pid)
        self._workers[pid] = entry

    def _child(self, entry: Running, slot: int, status_write: int) -> None:
        status = 1
        try:
            reset_after_fork()
            for descriptor in (self._wake_read, self._wake_write, self._life_write, *self._close_in_child):
                os.close(descriptor)
            for other in self.running.values():
                for descriptor in other.status_fds.values():
                    os.close(descriptor)
                if other is not entry:
                    for listener in other.listeners:
                        listener.close()
            _set_title(entry.service)
            os.chdir(self.config.get("queue_directory"))
            limit = worker_share(entry.state.client_limit, entry.state.max_workers, slot)
            program = f"{entry.config.get('syslog_name')}/{entry.service.command.rpartition('/')[2]}"
            spec = WorkerSpec(
                entry.daemon_class, entry.config, entry.service, self.sink, entry.listeners, status_write,
                self._life_read, limit, program,
            )  # fmt: skip
            status = Worker(spec).run()
        except Exception as error:  # noqa: BLE001 - the last chance to say why
            Log(self.sink, "postfix/" + entry.service.command).fatal(f"unexpected {type(error).__name__}: {error}")
        finally:
            exit_now(status)

    def _read_status(self, entry: Running, pid: int) -> None:
        descriptor = entry.status_fds.get(pid)
        if descriptor is None:
            return
        try:
            data = os.read(descriptor, 512)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # it ended without reading what we sent (a new log file): ECONNRESET, not an end of file
        if data:
            if pid in entry.retired:
                return
            target, other = (entry.state.busy, entry.state.available)
            if data[-1:] == b"a":
                target, other = other, target
            other.discard(pid)
            target.add(pid)
        else:
            os.close(descriptor)
            del entry.status_fds[pid]

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            entry = self._workers.pop(pid, None)
            if entry is None:
                continue
            entry.state.available.discard(pid)
            entry.state.busy.discard(pid)
            entry.retired.discard(pid)
            entry.slots.pop(pid, None)
            descriptor = entry.status_fds.pop(pid, None)
            if descriptor is not None:
                os.close(descriptor)
            self._ended(entry, pid, status)

    def _ended(self, entry: Running, pid: int, status: int) -> None:
        if self._stopping:
            return
        now = time.monotonic()
        command = entry.service.command
        if os.WIFSIGNALED(status):
            self.log.warning(f"process {command} pid {pid} killed by signal {os.WTERMSIG(status)}")
        elif os.WEXITSTATUS(status):
            self.log.warning(f"process {command} pid {pid} exit status {os.WEXITSTATUS(status)}")
            self.log.warning(f"{command}: bad command startup -- throttling")
            entry.state.throttled_until = now + entry.config.seconds("service_throttle_time")
        if status and entry.service.wakeup_s > 0:  # it may have died with work in hand: wake it (anew) soon
            entry.next_wakeup = min(entry.next_wakeup, now + RESTART_DELAY_S)
        if entry.daemon_class.stays:
            entry.wanted_at = now + (RESTART_DELAY_S if status else 0.0)

    # -- configuration ------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        try:
            config = load_config(self.config.directory)
            verify_configuration(config.directory, self.log)
            sink = open_sink(
                config.get("maillog_file"), config.get("syslog_facility"), config.get("myhostname").partition(".")[0]
            )
            for problem in prepare_jail(config):
                self.log.warning(problem)
            self._apply(config)
        except (ConfigError, OSError) as error:
            self.log.error(f"reload: {error}; the old configuration stays in force")
            return
        # A rotated log file: new workers write to the new one (the old one closes with the last worker that has it).
        old, self.sink, self.log.sink = self.sink, sink, sink
        self._hand_on_log()
        if isinstance(old, FileSink):
            os.close(old.descriptor)
        self.log.info(f"reload -- version {config.get('mail_version')}, configuration {config.directory}")

    def _hand_on_log(self) -> None:
        """Workers that stay get the new log file: they may not be able to open it."""
        if not isinstance(self.sink, FileSink):
            return
        for entry in self.running.values():
            if entry.daemon_class.stays:
                for descriptor in entry.status_fds.values():
                    with socket.socket(fileno=os.dup(descriptor)) as link:
                        try:
                            socket.send_fds(link, [b"L"], [self.sink.descriptor])
                        except OSError as error:
                            self.log.warning(f"{entry.service.name}: new log file: {error}")

    def _apply(self, config: Config) -> None:
        """Bring the services in line with main.cf and master.cf; raises before anything is changed."""
        wanted: dict[tuple[str, str], tuple[MasterService, type[Daemon], Config]] = {}
        disabled = config.words("master_service_disable")
        for service in load_master_cf(config.directory, disabled, jail_default=jails_by_default(config)):
            daemon_class = find_daemon(service, self.log.warning)
            if daemon_class is None:
                continue
            wanted[service.name, service.type] = (service, daemon_class, config.with_overrides(service.overrides))
        opened: dict[tuple[str, str], list[socket.socket]] = {}
        owner = socket_owner(config)
        try:
            for key, (service, _, _) in wanted.items():
                if key not in self.running:
                    opened[key] = open_listeners(config, service, owner)
        except (ConfigError, OSError):
            for listeners in opened.values():
                for listener in listeners:
                    listener.close()
            raise
        self.config = config
        for key in [key for key in self.running if key not in wanted]:
            self._close_service(self.running.pop(key))
        now = time.monotonic()
        for key, (service, daemon_class, service_config) in wanted.items():
            maxproc = service_config.int("default_process_limit") if service.maxproc is None else service.maxproc
            state = ServiceState(workers_for(maxproc, self.cores, daemon_class.max_workers), maxproc)
            old = self.running.get(key)
            entry = Running(service, daemon_class, service_config, state, opened.get(key, old.listeners if old else []))
            renewal = Renewal(service.command.rpartition("/")[2], service_config)
            if renewal.watches:
                entry.renewal = renewal
            if service.wakeup_s > 0:
                entry.next_wakeup = now
            if daemon_class.stays:
                entry.wanted_at = now
            if old is not None:
                self._replace(old, entry)
            self.running[key] = entry

    def _replace(self, old: Running, entry: Running) -> None:
        """Workers of the old configuration drain; one that stays takes the new configuration by itself."""
        jailed = entry.service.chroot and privilege.is_root()  # it cannot read the new main.cf
        number = signal.SIGTERM if entry.daemon_class.stays and jailed else signal.SIGHUP
        for pid in old.slots:
            _kill(pid, number)
            self._workers[pid] = entry
        entry.slots.update(old.slots)
        entry.status_fds.update(old.status_fds)
        if entry.daemon_class.stays:
            entry.state.available.update(old.slots)
            entry.wanted_at = 0.0
        else:
            entry.retired.update(old.slots)

    def _close_service(self, entry: Running) -> None:
        for listener in entry.listeners:
            listener.close()
        for pid in entry.slots:
            _kill(pid, signal.SIGHUP)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _set_title(service: MasterService) -> None:
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(f"{service.command.rpartition('/')[2]} -n {service.name} -t {service.type}")

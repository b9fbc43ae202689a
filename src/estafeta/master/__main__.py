"""``python -m estafeta.master``: the master program, started by ``postfix start`` and ``postfix start-fg``.

Source: master(8) options: ``-c`` configuration directory, ``-d`` stay in the foreground, ``-w`` return when the system listens.
Exit status 1 with one line on standard error if the system cannot start.
"""

from __future__ import annotations

import fcntl
import getopt
import os
import resource
import signal
import sys
import time

from estafeta.config.config import Config, load_config
from estafeta.config.errors import ConfigError
from estafeta.config.jail_check import prepare_jail
from estafeta.master.directories import prepare_directories
from estafeta.master.master import Master
from estafeta.master.verify import verify_configuration
from estafeta.system.log import Log, Sink, open_sink


def main(arguments: list[str] | None = None) -> int:
    """Start the system; in the foreground return when it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until run() takes it: no traceback for a Ctrl-C while starting
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    options, rest = getopt.getopt(sys.argv[1:] if arguments is None else arguments, "c:dwiDtv")
    values = dict(options)
    if rest:
        sys.stderr.write("usage: master [-c config_dir] [-d] [-w]\n")
        return 1
    if arguments is None:
        _close_inherited()
    directory = values.get("-c") or os.environ.get("MAIL_CONFIG") or "/etc/postfix"
    try:
        config = load_config(directory)
        sink = open_sink(config.get("maillog_file"), config.get("syslog_facility"), log_hostname(config))
        log = Log(sink, config.get("syslog_name") + "/master")
    except ConfigError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"parameter maillog_file: open {error.filename}: {error.strerror}")
    try:
        verify_configuration(directory, log)
        prepare_directories(config)
        for problem in prepare_jail(config):
            log.warning(problem)
        os.chdir(config.get("queue_directory"))
        lock = _lock(config)
    except ConfigError as error:
        return _fatal(log, str(error))
    except OSError as error:
        return _fatal(log, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    if "-d" in values:
        return _serve(config, sink, log, lock, ready=None)
    return _detach(config, sink, log, lock)


def log_hostname(config: Config) -> str:
    """The host name in maillog_file lines: the first label of myhostname."""
    return config.get("myhostname").partition(".")[0]


def _fatal(log: Log, text: str) -> int:
    log.fatal(text)
    if not hasattr(log.sink, "_fd") or os.environ.get("MAIL_VERBOSE") != "no":
        sys.stderr.write(f"{log.program}: fatal: {text}\n")
    return 1


def _refuse(text: str) -> int:
    sys.stderr.write(f"postfix: fatal: {text}\n")
    return 1


def _close_inherited() -> None:
    """Whoever ran `postfix start` may wait for the end of a pipe that it gave us without wanting to."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.close(int(name))
            except OSError:
                pass  # the listing's own descriptor


def _lock(config: Config) -> int:
    """The lock on pid/master.pid: one master a queue directory."""
    path = os.path.join(config.get("queue_directory"), "pid", "master.pid")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    for attempts_left in (3, 2, 1, 0):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if not attempts_left:
                os.close(descriptor)
                raise ConfigError("the mail system is already running") from None
            time.sleep(0.02)  # a `postfix status` looks at the lock by taking it for a moment
    return descriptor


def _write_pid(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid():>10d}\n".encode(), 0)


def _allow_many_files() -> None:
    """A worker serves thousands of sessions: take all the descriptors that the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _serve(config: Config, sink: Sink, log: Log, lock: int, ready: int | None) -> int:
    _write_pid(lock)
    _allow_many_files()
    master = Master(config, sink, cores=len(os.sched_getaffinity(0)))
    try:
        master.open([lock] if ready is None else [lock, ready])
    except Exception as error:  # noqa: BLE001 - whatever it is, who started us must hear of it
        text = str(error) if isinstance(error, ConfigError | OSError) else f"unexpected {type(error).__name__}: {error}"
        if ready is None:
            return _fatal(log, text)
        os.write(ready, text.encode("utf-8", "surrogateescape")[:4000])
        os.close(ready)
        return 1
    if ready is not None:
        os.write(ready, b"\0")
        os.close(ready)
        master.close_in_child([lock])
    master.run()
    return 0


def _detach(config: Config, sink: Sink, log: Log, lock: int) -> int:
    """Go to the background; return when the system listens or has failed."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(write_end)
        answer = os.read(read_end, 4096)
        if answer == b"\0":
            return 0
        return _fatal(log, answer.decode("utf-8", "surrogateescape") or "the master died at start")
    os.close(read_end)
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    status = 1
    try:
        status = _serve(config, sink, log, lock, write_end)
    finally:
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())

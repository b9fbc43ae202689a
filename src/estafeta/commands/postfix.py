"""postfix(1): start, stop, reload, flush, check, status.

Usage: ``postfix [-c config_dir] [-Dv] command``. Exit status 0 if it was done, 1 if not, with one line on standard error.
The master is a program of its own (``python -m estafeta.master``), so that this one stays small.
"""

from __future__ import annotations

import fcntl
import getopt
import os
import signal
import socket
import sys
import time

from estafeta.config.config import Config, load_config
from estafeta.config.errors import ConfigError
from estafeta.system.log import Log, open_sink

_STOP_WAIT_S = 30.0
_COMMANDS = ("start", "start-fg", "stop", "abort", "reload", "flush", "check", "status", "quick-start", "quick-stop", "drain")


def main(argv: list[str] | None = None) -> int:
    """Entry point; the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback for a Ctrl-C
    try:
        options, rest = getopt.getopt(sys.argv[1:] if argv is None else argv, "c:Dpv")
    except getopt.GetoptError as error:
        return _usage(str(error))
    directory = dict(options).get("-c") or os.environ.get("MAIL_CONFIG") or "/etc/postfix"
    if len(rest) != 1 or rest[0] not in _COMMANDS:
        return _usage(f"unknown command: '{' '.join(rest)}'" if rest else "no command")
    if not os.path.isdir(directory):
        return _complain(f"chdir({directory}): No such directory")
    directory = os.path.abspath(directory)
    os.environ["MAIL_CONFIG"] = directory
    try:
        config = load_config(directory)
        config.get("queue_directory")
    except ConfigError as error:
        return _complain(str(error))
    command = rest[0].removeprefix("quick-")
    try:
        return _run(command, config)
    except ConfigError as error:
        return _complain(str(error))
    except PermissionError as error:
        if error.filename:
            return _complain(f"{error.filename}: {error.strerror}")
        return _complain("use of this command is reserved for the superuser and for who started the mail system")
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _usage(text: str) -> int:
    sys.stderr.write(f"postfix: fatal: {text}. Usage: postfix [-c config_dir] [-Dv] {'|'.join(_COMMANDS[:8])}\n")
    return 1


def _complain(text: str) -> int:
    sys.stderr.write(f"postfix: fatal: {text}\n")
    return 1


def _run(command: str, config: Config) -> int:
    if command in ("start", "start-fg"):
        return _start(config, foreground=command == "start-fg")
    if command == "check":
        return _check(config)
    pid = running_master(config)
    if command == "status":
        text = f"the Postfix mail system is running: PID: {pid}" if pid else "the Postfix mail system is not running"
        _script_log(config, text)
        sys.stderr.write(f"postfix/postfix-script: {text}\n")
        return 0 if pid else 1
    if not pid:
        sys.stderr.write("postfix/postfix-script: fatal: the Postfix mail system is not running\n")
        return 1
    if command == "reload":
        os.kill(pid, 0)  # may we?
        if _check(config, warnings=False):
            return _complain("the running system keeps its old configuration")
        _script_log(config, "refreshing the Postfix mail system")
        os.kill(pid, signal.SIGHUP)
        return 0
    if command == "flush":
        return _flush(config)
    _script_log(config, "aborting the Postfix mail system" if command == "abort" else "stopping the Postfix mail system")
    return _stop(config, pid, hard=command == "abort")


def _script_log(config: Config, text: str) -> None:
    try:
        sink = open_sink(config.get("maillog_file"), config.get("syslog_facility"), config.get("myhostname").partition(".")[0])
    except (OSError, ConfigError):
        return
    Log(sink, config.get("syslog_name") + "/postfix-script").info(text)


def running_master(config: Config) -> int:
    """The pid of the running master, or 0: who holds the lock on pid/master.pid."""
    path = os.path.join(config.get("queue_directory"), "pid", "master.pid")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.read(descriptor, 32).split()
        return int(text[0]) if text and text[0].isdigit() else 0
    finally:
        os.close(descriptor)
    return 0


def _start(config: Config, *, foreground: bool) -> int:  # noqa: RET503 - execv does not return
    if running_master(config):
        sys.stderr.write("postfix/postfix-script: fatal: the Postfix mail system is already running\n")
        return 1
    _script_log(config, "starting the Postfix mail system")
    arguments = [sys.executable, "-m", "estafeta.master", "-c", config.directory, "-d" if foreground else "-w"]
    sys.stdout.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the master takes it when it has been imported
    os.execv(sys.executable, arguments)


def _stop(config: Config, pid: int, *, hard: bool) -> int:
    os.kill(pid, signal.SIGKILL if hard else signal.SIGTERM)
    deadline = time.monotonic() + _STOP_WAIT_S
    while running_master(config):
        if time.monotonic() > deadline:
            return _complain(f"the master (PID {pid}) does not end")
        time.sleep(0.01)
    return 0


def _flush(config: Config) -> int:
    path = os.path.join(config.get("queue_directory"), "public", "qmgr")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.connect(path)
        link.sendall(b"F")
    return 0


def _check(config: Config, *, warnings: bool = True) -> int:
    """Everything that is wrong or without effect, a line each; 1 if something stops the system from starting."""
    from estafeta.config.jail_check import jail_problems
    from estafeta.config.programs import KNOWN_PROGRAMS
    from estafeta.config.settings_check import check_configuration
    from estafeta.sasl.check import sasl_problems
    from estafeta.tables.availability import table_problems
    from estafeta.tls.check import tls_problems

    problems = check_configuration(config.directory, KNOWN_PROGRAMS)
    fatal = any(problem.severity == "fatal" for problem in problems)
    if not fatal:
        problems += table_problems(config) + tls_problems(config) + sasl_problems(config) + jail_problems(config)
    for problem in problems:
        if warnings or problem.severity == "fatal":
            sys.stderr.write(f"postfix: {problem}\n")
    return 1 if fatal else 0


if __name__ == "__main__":
    sys.exit(main())

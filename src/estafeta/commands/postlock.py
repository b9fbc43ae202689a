"""postlock(1): lock a mailbox file as local(8) does, and run a command while it is locked.

Source: postlock(1), postconf(5) mailbox_delivery_lock, deliver_lock_attempts, deliver_lock_delay, stale_lock_time. The status is
the command's, or 75 where nothing was run.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from estafeta.config.config import load_config
from estafeta.config.errors import ConfigError
from estafeta.delivery.locking import Busy, LockPolicy, drop_dot_lock, lock_file, lock_policy, parse_methods, take_dot_lock

_USAGE = "usage: postlock [-c config_dir] [-l lock_style] [-v] folder command..."
_CANNOT = 75  # EX_TEMPFAIL


def main(argv: Sequence[str] | None = None) -> int:
    """Run postlock with ``argv`` (without the program's name); the exit status."""
    import getopt

    try:
        options, words = getopt.getopt(list(sys.argv[1:] if argv is None else argv), "c:l:v")
    except getopt.GetoptError:
        words, options = [], []
    if len(words) < 2:
        return _fatal(_USAGE)
    given = dict(options)
    try:
        config = load_config(given.get("-c"))
        style = given.get("-l", config.get("mailbox_delivery_lock"))
        try:
            methods = parse_methods(style.replace(",", " ").split())
        except ValueError as error:
            word = str(error).rpartition(" ")[2]
            return _fatal(f'unknown mailbox_delivery_lock value "{word}" in "{style}"')
        policy = lock_policy(config, methods)
        return _locked(words[0], words[1:], policy)
    except ConfigError as error:
        return _fatal(str(error))
    except OSError as error:
        return _fatal(f"open file {words[0]}: {error.strerror}")


def _fatal(text: str) -> int:
    sys.stderr.write(f"postlock: fatal: {text}\n")
    return _CANNOT


def _locked(path: str, command: list[str], policy: LockPolicy) -> int:
    """Raises OSError for a file that cannot be opened."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for attempt in range(max(1, policy.attempts)):
        if attempt:
            time.sleep(policy.delay_s)
        lock = ""
        try:
            if "dotlock" in policy.methods:
                lock = take_dot_lock(path, policy.stale_s)
            lock_file(descriptor, policy.methods)
        except Busy:
            if lock:
                drop_dot_lock(lock)
            continue
        except OSError as error:
            return _fatal(f"open file {path}: unable to create lock file {path}.lock: {error.strerror}")
        try:
            return _run(command)
        finally:
            if lock:
                drop_dot_lock(lock)
    return _fatal(f"open file {path}: unable to lock for exclusive access: Resource temporarily unavailable")


def _run(command: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            os.execvp(command[0], command)
        except OSError as error:
            sys.stderr.write(f"postlock: fatal: execvp {command[0]}: {error.strerror}\n")
            sys.stderr.flush()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else _CANNOT


if __name__ == "__main__":
    sys.exit(main())

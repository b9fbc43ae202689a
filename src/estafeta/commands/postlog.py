"""postlog(1): write lines to the mail log from scripts.

Source: postlog(1). Text of the command line is one record, else each line of standard input is one. Lines go to postlogd's
socket when it is there and maillog_file is set, else to maillog_file or syslog directly; to a terminal as well.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Sequence

from estafeta.config.config import Config, load_config
from estafeta.config.errors import ConfigError
from estafeta.system.log import Log, Severity, open_sink

_USAGE = "usage: postlog [-iv] [-c config_dir] [-p priority] [-t tag] [text]"
_PRIORITIES = {
    "info": (Severity.INFO, ""), "warn": (Severity.WARNING, "warning: "), "warning": (Severity.WARNING, "warning: "),
    "error": (Severity.ERROR, "error: "), "fatal": (Severity.FATAL, "fatal: "), "panic": (Severity.FATAL, "panic: "),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run postlog with ``argv`` (without the program's name); the exit status."""
    import getopt

    try:
        options, words = getopt.getopt(list(sys.argv[1:] if argv is None else argv), "c:ip:t:v")
    except getopt.GetoptError as error:
        sys.stderr.write(f"postlog: {error}\npostlog: fatal: {_USAGE}\n")
        return 1
    given = dict(options)
    priority = given.get("-p", "info")
    if priority not in _PRIORITIES:
        sys.stderr.write(f"postlog: fatal: unknown priority: {priority}\n")
        return 1
    severity, prefix = _PRIORITIES[priority]
    try:
        config = load_config(given.get("-c"))
        tag = given.get("-t") or f"{config.get('syslog_name')}/postlog"
        lines = [" ".join(words)] if words else [line.rstrip("\n") for line in sys.stdin]
        for line in lines:
            _write(config, tag, severity, prefix + line)
    except (ConfigError, OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"postlog: fatal: {error}\n")
        return 1
    if severity == Severity.FATAL:
        time.sleep(1)
    return 0


def _write(config: Config, tag: str, severity: Severity, text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"{tag}: {text}\n")
    path = config.get("maillog_file")
    if path and not os.access(path, os.W_OK) and _to_postlogd(config, f"{tag}[{os.getpid()}]: {text}"):
        return
    hostname = config.get("myhostname").partition(".")[0]
    Log(open_sink(path, config.get("syslog_facility"), hostname), tag).line(text, severity=severity)


def _to_postlogd(config: Config, line: str) -> bool:
    """One datagram to the postlog service; False if it is not there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        try:
            link.connect(os.path.join(config.get("queue_directory"), "public", "postlog"))
            link.send(line.encode("utf-8", "surrogateescape"))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())

"""Where log lines go: a file (maillog_file), the syslog socket, or standard error.

Source: postconf(5) maillog_file, syslog_facility, syslog_name; RFC 3164 for the syslog datagrams.
A sink collects the lines of one event-loop turn and writes them together: one system call a turn, not one a line.
The file is opened with O_APPEND before privileges are dropped, so that a jailed worker needs nobody's help to log.

Invariants: a line never contains a control character (they are replaced by ``?`` as Postfix does); a failure to log never
stops the mail.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

_MAX_DATAGRAM = 2000
_UNPRINTABLE = dict.fromkeys((*range(32), 127), "?")
_FACILITIES = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9,
    "authpriv": 10, "ftp": 11, **{f"local{n}": 16 + n for n in range(8)},
}  # fmt: skip


class Severity(IntEnum):
    """Syslog severities that a mail system uses."""

    FATAL = 2
    ERROR = 3
    WARNING = 4
    INFO = 6


class Sink(Protocol):
    """Takes finished lines."""

    def emit(self, severity: Severity, tag: str, text: str) -> None:
        """Queue one line; ``tag`` is ``postfix/smtpd[123]``."""

    def flush(self) -> None:
        """Write what is queued."""


class FileSink:
    """Lines with Postfix's maillog_file time stamp, appended to one file descriptor."""

    def __init__(self, descriptor: int, hostname: str) -> None:
        self._fd = descriptor
        self._lines: list[str] = []
        self._hostname = hostname
        self._second = 0
        self._stamp = ""

    @property
    def descriptor(self) -> int:
        """The file, to hand on to another process."""
        return self._fd

    def continue_in(self, descriptor: int) -> None:
        """Write to another file from now on (after a rotation); takes ``descriptor`` over."""
        self.flush()
        os.dup2(descriptor, self._fd, inheritable=False)
        os.close(descriptor)

    def emit(self, severity: Severity, tag: str, text: str) -> None:
        now = int(time.time())
        if now != self._second:
            self._second = now
            parts = time.localtime(now)
            self._stamp = f"{time.strftime('%b %e %H:%M:%S', parts)} {self._hostname} "
        self._lines.append(f"{self._stamp}{tag}: {text}\n")

    def flush(self) -> None:
        if self._lines:
            data = "".join(self._lines).encode("utf-8", "surrogateescape")
            self._lines.clear()
            try:
                os.write(self._fd, data)
            except OSError:
                pass


class SyslogSink:
    """One datagram a line to the local syslog socket; reconnects, and drops lines while nobody listens."""

    def __init__(self, facility: str, path: str = "/dev/log") -> None:
        self._priority = _FACILITIES.get(facility, 2) << 3
        self._path = path
        self._socket: socket.socket | None = None
        self._lines: list[bytes] = []
        self._retry_at = 0.0
        self._connect()

    def _connect(self) -> None:
        if self._socket is not None or time.monotonic() < self._retry_at:
            return
        link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            link.connect(self._path)
        except OSError:
            link.close()
            self._retry_at = time.monotonic() + 1.0
            return
        link.setblocking(False)
        self._socket = link

    def emit(self, severity: Severity, tag: str, text: str) -> None:
        stamp = time.strftime("%b %e %H:%M:%S")
        line = f"<{self._priority + severity}>{stamp} {tag}: {text}"
        self._lines.append(line.encode("utf-8", "surrogateescape")[:_MAX_DATAGRAM])

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._connect()
        for line in lines:
            if self._socket is None:
                return
            try:
                self._socket.send(line)
            except BlockingIOError:
                continue
            except OSError:
                self._socket.close()
                self._socket = None


class StderrSink:
    """For commands and for start-up errors: ``postfix/postmap: fatal: ...`` on standard error."""

    def emit(self, severity: Severity, tag: str, text: str) -> None:
        sys.stderr.write(f"{tag.partition('[')[0]}: {text}\n")

    def flush(self) -> None:
        sys.stderr.flush()


class Log:
    """The log of one process: knows its name, its number and its sink.

    ``schedule`` is called once when lines wait for a flush (an event loop's ``call_soon``); without one every line is
    written at once.
    """

    def __init__(self, sink: Sink, program: str, *, number: int | None = None) -> None:
        self.sink = sink
        self.program = program
        self.number = os.getpid() if number is None else number
        self.schedule: Callable[[Callable[[], None]], object] | None = None
        self._pending = False
        self._tag = f"{program}[{self.number}]"

    def flush(self) -> None:
        """Write what waits."""
        self._pending = False
        self.sink.flush()

    def line(self, text: str, number: int = 0, severity: Severity = Severity.INFO) -> None:
        """Log ``text``; ``number`` identifies the session or delivery and defaults to the process."""
        if not text.isprintable():
            text = text.translate(_UNPRINTABLE)
        self.sink.emit(severity, f"{self.program}[{number}]" if number else self._tag, text)
        if not self._pending:
            if self.schedule is None:
                self.sink.flush()
            else:
                self._pending = True
                self.schedule(self.flush)

    def info(self, text: str, number: int = 0) -> None:
        self.line(text, number)

    def warning(self, text: str, number: int = 0) -> None:
        self.line("warning: " + text, number, Severity.WARNING)

    def error(self, text: str, number: int = 0) -> None:
        self.line("error: " + text, number, Severity.ERROR)

    def fatal(self, text: str, number: int = 0) -> None:
        """Log a fatal error; the caller ends the process."""
        self.line("fatal: " + text, number, Severity.FATAL)
        self.flush()


def open_sink(maillog_file: str, facility: str, hostname: str) -> Sink:
    """The sink that the configuration asks for; raises OSError when the file cannot be opened."""
    if not maillog_file:
        return SyslogSink(facility)
    if maillog_file == "/dev/stdout":
        return FileSink(os.dup(1), hostname)
    descriptor = os.open(maillog_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    return FileSink(descriptor, hostname)

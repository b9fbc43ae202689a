"""The two mail systems beside each other: Debian's Postfix and Estafeta, with the same main.cf and master.cf.

Only the directories of programs differ. Everything lies in one directory of its own; the mailboxes are there too. Root only:
services run as ``postfix``, with ``postdrop`` as their set-group-id group, as Debian's package has it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

NAMES = ("postfix", "estafeta")

MAIN_CF = """\
{level}
queue_directory = {top}/spool
data_directory = {top}/data
{directories}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {top}/log
maillog_file_prefixes = /
multi_instance_enable = yes
multi_instance_name = postfix-{name}
inet_protocols = ipv4
"""

SERVICES = """\
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
smtp unix - - n - - smtp
relay unix - - n - - smtp
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def missing() -> str | None:
    """Why the comparison cannot run here, or None."""
    if not Path("/usr/sbin/postconf").exists() or not Path("/usr/lib/postfix/sbin/master").exists():
        return "Debian's Postfix is not installed"
    if os.geteuid() != 0:
        return "only root can start Postfix"
    return None


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Poll until ``condition`` holds; AssertionError after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {timeout_s} s: {what}"
        time.sleep(0.02)


class Peer:
    """One system.

    ``main_cf`` and ``master_cf`` may say {top}, {etc}, {name} and what ``values`` has; ``prefix`` starts every command;
    ``level`` is the compatibility_level line (empty: none, as in an old main.cf).
    """

    def __init__(
        self,
        name: str,
        top: Path,
        main_cf: str,
        master_cf: str,
        *,
        files: Mapping[str, str] | None = None,
        values: Mapping[str, object] | None = None,
        prefix: Sequence[str] = (),
        level: str = "compatibility_level = 3.6",
    ) -> None:
        self.name = name
        self.top = top
        self.etc = top / "etc"
        self.spool = top / "spool"
        self.mail = top / "mail"
        self.log_path = top / "log"
        self.prefix = list(prefix)
        for directory in (self.etc, self.spool, top / "data", self.mail):
            directory.mkdir(parents=True, exist_ok=True)
        for directory in (top, *top.parents[:3]):
            with suppress(OSError):
                directory.chmod(directory.stat().st_mode | 0o055)
        shutil.chown(top / "data", "postfix")
        os.chown(self.mail, 65534, 65534)
        own = "command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin" if name == "postfix" else ""
        known = {"top": top, "etc": self.etc, "name": name, "directories": own, "level": level, **(values or {})}

        def filled(text: str) -> str:
            return re.sub(r"\{(\w+)\}", lambda m: str(known.get(m[1], m[0])), text)

        self.write("main.cf", filled(MAIN_CF + main_cf))
        self.write("master.cf", filled(master_cf) + SERVICES)
        for file, text in (files or {}).items():
            self.write(file, filled(text))

    def write(self, name: str, text: str) -> None:
        """Write a file of the configuration directory."""
        path = self.etc / name
        path.write_text(text)
        path.chmod(0o644)

    def command(
        self, program: str, *arguments: str, input_bytes: bytes = b"", timeout_s: float = 60
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one of the system's commands with its configuration."""
        argv = [f"/usr/sbin/{program}"] if self.name == "postfix" else [sys.executable, "-m", f"estafeta.commands.{program}"]
        environment = {**os.environ, "MAIL_CONFIG": str(self.etc)}
        return subprocess.run(
            [*self.prefix, *argv, *arguments], env=environment, input=input_bytes, capture_output=True, timeout=timeout_s,
            check=False,
        )  # fmt: skip

    def start(self) -> None:
        """Start; returns when the command comes back."""
        result = self.command("postfix", "-c", str(self.etc), "start")
        assert result.returncode == 0, f"{self.name}: {result.stderr!r}\n{self.log()}"

    def stop(self) -> None:
        """Stop, and end what is left of it."""
        if self.processes():
            self.command("postfix", "-c", str(self.etc), "stop")
        deadline = time.monotonic() + 5
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self) -> list[int]:
        """The system's processes: those that work in its queue directory."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):
                    if os.readlink(f"/proc/{entry}/cwd") == str(self.spool):
                        found.append(int(entry))
        return found

    def log(self) -> str:
        """The log so far."""
        try:
            return self.log_path.read_text(errors="surrogateescape")
        except FileNotFoundError:
            return ""

    def wait_log(self, pattern: str, timeout_s: float = 20, count: int = 1) -> None:
        """Wait until the regular expression has ``count`` matches in the log."""
        compiled = re.compile(pattern, re.MULTILINE)
        try:
            wait_until(lambda: len(compiled.findall(self.log())) >= count, timeout_s, pattern)
        except AssertionError as error:
            raise AssertionError(f"{self.name}: {error}\n{self.log()[-3000:]}") from None

    def flush_and_wait(self, timeout_s: float = 20) -> None:
        """Wait until the queue is empty (mailq says so)."""

        def is_empty() -> bool:
            return b"Mail queue is empty" in self.command("postqueue", "-p").stdout

        wait_until(is_empty, timeout_s, f"{self.name}: queue still has mail\n{self.log()[-3000:]}")


_LONG = "[0-9B-DF-HJ-NP-TV-Zb-df-hj-np-tv-z]"  # the alphabet of long queue ids
_QUEUE_ID = re.compile(rf"(?<!SIZE[ =])(?<!BDAT )\b(?:[0-9A-F]{{8,}}|{_LONG}{{10,}}z{_LONG}+)\b")
_DATE = re.compile(r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), +\d+ \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}(?: \([A-Z]+\))?")
_STAMP = re.compile(r"<\d{14}\.")


def normal(text: str) -> str:
    """Queue ids, dates and the stamp of a Message-Id out of the way."""
    return _QUEUE_ID.sub("QUEUEID", _STAMP.sub("<STAMP.", _DATE.sub("DATE", text)))


def connect(host: str, port: int, source: str = "", timeout_s: float = 15) -> socket.socket:
    """A connection from a source address of one's choice."""
    return socket.create_connection((host, port), timeout_s, (source, 0) if source else None)


class Conversation:
    """An SMTP client that shows every reply."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._file = self.socket.makefile("rb")

    def reply(self) -> str:
        """The next reply with all its lines; ``EOF`` at the end of the connection, ``TIMEOUT`` for silence."""
        lines = []
        try:
            while line := self._file.readline():
                lines.append(line)
                if line[3:4] != b"-":
                    break
        except TimeoutError:
            return "TIMEOUT"
        except OSError:
            return "EOF"
        return b"".join(lines).decode("latin-1") or "EOF"

    def send(self, data: bytes) -> None:
        """Send bytes as they are; a connection that is gone is seen by the next ``reply``."""
        with suppress(OSError):
            self.socket.sendall(data)

    def ask(self, line: bytes) -> str:
        """Send a line, get the reply."""
        self.send(line + b"\r\n")
        return self.reply()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self.socket.close()

    def message(self, sender: str, recipients: Sequence[str], content: bytes, helo: str = "client.test") -> list[str]:
        """A whole conversation with one message (CRLF line ends, dots not yet doubled); every reply."""
        replies = [self.reply(), self.ask(b"EHLO " + helo.encode()), self.ask(f"MAIL FROM:<{sender}>".encode())]
        accepted = False
        for recipient in recipients:
            replies.append(self.ask(f"RCPT TO:<{recipient}>".encode()))
            accepted |= replies[-1].startswith("250")
        if accepted:
            replies.append(self.ask(b"DATA"))
            stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
            self.send(stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n")
            replies.append(self.ask(b"."))
        replies.append(self.ask(b"QUIT"))
        self.close()
        return replies

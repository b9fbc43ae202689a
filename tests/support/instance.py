"""A real instance for tests: configuration, queue and mailboxes in a directory of its own, free ports, real processes.

Waits on sockets, logs and directories; never sleeps for luck. Root tests run the services as ``nobody``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from support.ports import free_port

PROGRAM = [sys.executable, "-m"]

MASTER_CF = """\
{smtp} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
smtp unix - - n - - smtp
relay unix - - n - - smtp
local unix - n n - - local
virtual unix - n n - - virtual
lmtp unix - - n - - lmtp
"""


def wait_for(condition: Callable[[], object], timeout_s: float = 20.0, what: str = "condition") -> object:
    """Poll until ``condition`` is true; its value. Fails the test after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {timeout_s} s: {what}")
        time.sleep(0.01)


class Instance:
    """See the module. ``settings`` are main.cf lines; ``master_cf`` replaces the usual services ({smtp} is the port)."""

    def __init__(self, settings: str = "", master_cf: str = MASTER_CF, directory: str | None = None) -> None:
        self.directory = Path(directory or tempfile.mkdtemp(prefix="estafeta-"))
        self.directory.chmod(0o755)
        self.etc = self.directory / "etc"
        self.spool = self.directory / "spool"
        self.mail = self.directory / "mail"
        self.log_path = self.directory / "maillog"
        self.port = free_port()
        root = os.geteuid() == 0
        owner = "nobody" if root else str(os.geteuid())
        group = "nogroup" if root else str(os.getegid())
        self.uid, self.gid = (65534, 65534) if root else (os.geteuid(), os.getegid())
        self.etc.mkdir(exist_ok=True)
        self.mail.mkdir(exist_ok=True)
        os.chown(self.mail, self.uid, self.gid)
        self.write(
            "main.cf",
            f"""\
compatibility_level = 3.6
queue_directory = {self.spool}
data_directory = {self.directory}/data
maillog_file = {self.log_path}
mail_owner = {owner}
setgid_group = {group}
myhostname = mail.test.example
mydomain = test.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
transport_maps = inline:{{ {{ discard.test = discard: }} }}
virtual_mailbox_domains = box.test
virtual_mailbox_maps = regexp:{self.etc}/mailboxes
virtual_mailbox_base = {self.mail}
virtual_minimum_uid = 1
virtual_uid_maps = static:{self.uid}
virtual_gid_maps = static:{self.gid}
minimal_backoff_time = 1s
maximal_backoff_time = 2s
queue_run_delay = 1s
transport_retry_time = 1s
service_throttle_time = 1s
{settings}
""",
        )
        self.write("master.cf", master_cf.replace("{smtp}", f"127.0.0.1:{self.port}"))
        self.write("mailboxes", "/^([^@]+)@box\\.test$/ ${1}/\n")

    def write(self, name: str, text: str) -> Path:
        """Write a configuration file."""
        path = self.etc / name
        path.write_text(text)
        path.chmod(0o644)
        return path

    def command(self, name: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run one of our commands with this instance's configuration."""
        environment = {**os.environ, "MAIL_CONFIG": str(self.etc)}
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            [*PROGRAM, f"estafeta.commands.{name}", *arguments],
            env=environment, text=True, capture_output=True, timeout=60, check=False, **options,
        )  # fmt: skip

    def start(self) -> Instance:
        """postfix start; returns when the system listens."""
        result = self.command("postfix", "start")
        assert result.returncode == 0, result.stderr
        return self

    def stop(self) -> None:
        """postfix stop, and proof that nothing is left."""
        if self.master_pid():
            result = self.command("postfix", "stop")
            assert result.returncode == 0, result.stderr
        wait_for(lambda: not self.processes(), 15, f"processes left: {self.processes()}")

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def master_pid(self) -> int:
        """The master's pid, or 0."""
        try:
            pid = int((self.spool / "pid" / "master.pid").read_text().split()[0])
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError, IndexError):
            return 0
        return 0 if state == "Z" else pid

    def processes(self) -> dict[int, str]:
        """Our processes by pid, with their titles: those whose working directory is the queue directory."""
        found = {}
        spool = str(self.spool)
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    if os.readlink(f"/proc/{entry}/cwd") != spool:
                        continue
                    title = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode("latin-1").strip()
                    state = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
                if state != "Z" and title:  # a process that is ending has no title any more
                    found[int(entry)] = title
        return found

    def pids(self, program: str) -> list[int]:
        """Workers of a program (``smtpd``), or the master's (``master``)."""
        if program == "master":
            return [pid] if (pid := self.master_pid()) else []
        return [pid for pid, title in self.processes().items() if title.startswith(program + " ")]

    def kill(self, program: str) -> int:
        """kill -9 every worker of ``program``; how many there were."""
        pids = self.pids(program)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    def log(self) -> str:
        """The log so far."""
        try:
            return self.log_path.read_text(errors="surrogateescape")
        except FileNotFoundError:
            return ""

    def wait_log(self, pattern: str, timeout_s: float = 20.0, count: int = 1) -> list[str]:
        """Wait until ``pattern`` (a regular expression) is in the log ``count`` times; the matches."""
        compiled = re.compile(pattern)

        def enough() -> list[str] | None:
            found = [match.group(0) for match in compiled.finditer(self.log())]
            return found if len(found) >= count else None

        try:
            result = wait_for(enough, timeout_s, pattern)
        except AssertionError:
            raise AssertionError(f"not in the log: {pattern}\n{self.log()[-4000:]}") from None
        assert isinstance(result, list)
        return result

    def mailbox(self, user: str) -> list[Path]:
        """The messages in a Maildir."""
        return sorted((self.mail / user / "new").glob("*"))

    def queue_is_empty(self) -> bool:
        """True if no message is left anywhere in the queue."""
        from estafeta.spool import scan

        return not any(True for queue in ("incoming", "deferred", "hold") for _ in scan.list_queue(str(self.spool), queue))

    def unexpected(self) -> list[str]:
        """Log lines that no test should see."""
        return [line for line in self.log().splitlines() if ": error:" in line or "unexpected" in line or "panic" in line]


@contextlib.contextmanager
def running(settings: str = "", master_cf: str = MASTER_CF) -> Iterator[Instance]:
    """A started instance; stopped and removed at the end (kept, with its place printed, if the test failed)."""
    instance = Instance(settings, master_cf)
    try:
        instance.start()
        yield instance
        instance.stop()
    except BaseException:
        print(f"instance kept in {instance.directory}\n{instance.log()[-6000:]}")
        for pid in instance.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise
    instance.remove()


class Client:
    """A small SMTP client that shows every reply."""

    def __init__(self, port: int, host: str = "127.0.0.1", timeout_s: float = 30.0) -> None:
        self.socket = socket.create_connection((host, port), timeout_s)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def reply(self) -> bytes:
        """The next reply, all its lines; empty at the end of the connection."""
        lines = []
        while line := self._file.readline():
            lines.append(line)
            if line[3:4] != b"-":
                break
        return b"".join(lines)

    def ask(self, line: bytes) -> bytes:
        """Send one line, get the reply."""
        self.socket.sendall(line + b"\r\n")
        return self.reply()

    def send(self, sender: bytes, recipients: list[bytes], content: bytes) -> bytes:
        """One message; the reply to its end, or the first refusal."""
        for line in (b"MAIL FROM:<" + sender + b">", *(b"RCPT TO:<" + r + b">" for r in recipients), b"DATA"):
            reply = self.ask(line)
            if reply[:1] not in b"23" or not reply:
                return reply
        self.socket.sendall(content + b"\r\n.\r\n")
        return self.reply()

    def close(self) -> None:
        """Close without QUIT."""
        self._file.close()
        self.socket.close()

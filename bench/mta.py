"""Two mail systems with the same configuration: Debian's Postfix and Estafeta, each in a directory of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {top}/spool
data_directory = {top}/data
{directories}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {top}/log
maillog_file_prefixes = /
myhostname = bench.example
mydomain = bench.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
message_size_limit = 20000000
virtual_mailbox_limit = 0
mailbox_size_limit = 0
disable_dns_lookups = yes
transport_maps = inline:{{ {{ discard.bench = discard: }}, {{ sink.bench = smtp:[127.0.0.1]:{sink_port} }} }}
relay_domains = discard.bench, sink.bench
virtual_mailbox_domains = box.bench
virtual_mailbox_maps = inline:{{ {{ x@box.bench = x/ }} }}
virtual_mailbox_base = {top}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
multi_instance_enable = yes
multi_instance_name = postfix-{name}
default_process_limit = {process_limit}
smtpd_client_connection_count_limit = 0
{extra}
"""

MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
smtp unix - - n - - smtp
relay unix - - n - - smtp
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Mta:
    """One of the two. ``name`` is postfix or estafeta."""

    def __init__(self, name: str, base: Path, port: int, sink_port: int, *, process_limit: int = 100, extra: str = "",
                 files: dict[str, str] | None = None, resolver: Path | None = None) -> None:  # fmt: skip
        self.name = name
        self.port = port
        self.resolver = resolver  # another /etc/resolv.conf, for this system only
        self.top = base / name
        self.etc = self.top / "etc"
        self.log = self.top / "log"
        self.spool = self.top / "spool"
        for directory in (self.etc, self.spool, self.top / "data", self.top / "mail"):
            directory.mkdir(parents=True, exist_ok=True)
        shutil.chown(self.top / "data", "postfix")
        os.chown(self.top / "mail", 65534, 65534)
        own = "command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin" if name == "postfix" else ""
        values = {"top": self.top, "sink_port": sink_port, "name": name, "directories": own, "process_limit": process_limit,
                  "extra": extra.replace("{etc}", str(self.etc))}  # fmt: skip
        (self.etc / "main.cf").write_text(MAIN_CF.format(**values))
        (self.etc / "master.cf").write_text(MASTER_CF.format(port=port))
        for file, text in (files or {}).items():
            (self.etc / file).write_text(text)

    def _postfix(self, verb: str) -> None:
        program = ["/usr/sbin/postfix"] if self.name == "postfix" else [sys.executable, "-m", "estafeta.commands.postfix"]
        if self.resolver is not None:
            inside = f'mount --bind {self.resolver} /etc/resolv.conf && exec "$@"'
            program = ["unshare", "-m", "--propagation", "private", "sh", "-c", inside, "sh", *program]
        environment = {**os.environ, "MAIL_CONFIG": str(self.etc)}
        result = subprocess.run([*program, "-c", str(self.etc), verb], env=environment, capture_output=True, text=True, check=False, timeout=60)
        if result.returncode:
            raise SystemExit(f"{self.name} {verb}: {result.stderr}")

    def start(self) -> float:
        """Start; seconds until the command came back."""
        begun = time.monotonic()
        self._postfix("start")
        return time.monotonic() - begun

    def stop(self) -> None:
        """Stop."""
        self._postfix("stop")

    def pids(self) -> list[int]:
        """The system's processes: those that work in its queue directory."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    if os.readlink(f"/proc/{entry}/cwd") == str(self.spool):
                        found.append(int(entry))
                except OSError:
                    continue
        return found

    def cpu_seconds(self) -> float:
        """CPU used so far by the system's processes, those that have ended included."""
        master = int((self.spool / "pid" / "master.pid").read_text().split()[0])
        total = 0
        for pid in self.pids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            total += int(fields[11]) + int(fields[12])
            if pid == master:
                total += int(fields[13]) + int(fields[14])
        return total / TICKS

    def memory_bytes(self) -> int:
        """Proportional set size of all processes: shared pages count once."""
        total = 0
        for pid in self.pids():
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
        return total

    def clear(self) -> None:
        """New mailboxes and an empty log. Old ones are moved away, not deleted: ext4 is many times slower at making files for
        some seconds after many have been unlinked, and that would be measured instead."""
        trash = self.top / "trash"
        trash.mkdir(exist_ok=True)
        for entry in (self.top / "mail").iterdir():
            entry.rename(trash / f"{time.time_ns()}-{entry.name}")
        os.truncate(self.log, 0)

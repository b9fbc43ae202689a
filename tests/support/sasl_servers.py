"""The real servers behind SASL: Dovecot's auth service and saslauthd, each in a directory of its own, and an IMAP server for the latter."""

from __future__ import annotations

import os
import shutil
import signal
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DOVECOT = "/usr/sbin/dovecot"
SASLAUTHD = "/usr/sbin/saslauthd"

_DOVECOT_CONF = """\
base_dir = {top}/run
state_dir = {top}/run
log_path = {top}/dovecot.log
protocols =
listen = 127.0.0.1
ssl = no
auth_mechanisms = plain login cram-md5 digest-md5 scram-sha-256
disable_plaintext_auth = no
auth_failure_delay = 0
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {top}/users
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
service auth {{
  unix_listener {top}/sock/auth {{
    mode = 0666
  }}
  inet_listener {{
    address = 127.0.0.1
    port = {port}
  }}
}}
service anvil {{
  chroot =
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  chroot =
}}
"""


def _wait(path: Path, what: str) -> None:
    deadline = time.monotonic() + 15
    while not path.exists():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@contextmanager
def dovecot(top: Path, users: dict[str, str], port: int) -> Iterator[str]:
    """The path of the auth socket of a Dovecot with these passwords; it listens on ``port`` too."""
    for name in ("run", "sock"):
        (top / name).mkdir(parents=True)
    for directory in (top, top / "sock", *top.parents[:2]):
        with suppress(OSError):
            directory.chmod(directory.stat().st_mode | 0o055)
    (top / "users").write_text("".join(f"{user}:{{PLAIN}}{password}\n" for user, password in users.items()))
    (top / "users").chmod(0o644)
    (top / "dovecot.conf").write_text(_DOVECOT_CONF.format(top=top, port=port))
    process = subprocess.Popen([DOVECOT, "-F", "-c", str(top / "dovecot.conf")], stderr=subprocess.DEVNULL)
    try:
        _wait(top / "sock" / "auth", "Dovecot did not start")
        yield str(top / "sock" / "auth")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


class _Imap(socketserver.StreamRequestHandler):
    """As much of IMAP as saslauthd -a rimap asks: LOGIN."""

    def handle(self) -> None:
        self.wfile.write(b"* OK ready\r\n")
        for line in self.rfile:
            tag, _, rest = line.strip().partition(b" ")
            good = self.server.users  # type: ignore[attr-defined]
            words = [word.strip(b'"') for word in rest.split()]
            if words[:1] == [b"LOGIN"]:
                right = good.get(words[1].decode()) == words[2].decode()
                self.wfile.write(tag + (b" OK done\r\n" if right else b" NO wrong\r\n"))
            else:
                self.wfile.write(b"* BYE\r\n" + tag + b" OK bye\r\n")
                return


@contextmanager
def saslauthd(top: Path, users: dict[str, str]) -> Iterator[str]:
    """The path of the mux of a saslauthd that asks an IMAP server with these passwords."""
    top.mkdir(parents=True)
    for directory in (top, *top.parents[:2]):
        with suppress(OSError):
            directory.chmod(directory.stat().st_mode | 0o055)
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Imap)
    server.daemon_threads = True
    server.users = users  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    command = [SASLAUTHD, "-d", "-a", "rimap", "-O", f"127.0.0.1/{port}", "-m", str(top), "-n", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait(top / "mux", "saslauthd did not start")
        yield str(top / "mux")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)
        server.shutdown()
        server.server_close()
        shutil.rmtree(top, ignore_errors=True)

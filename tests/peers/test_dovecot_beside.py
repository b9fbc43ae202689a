"""lmtp(8) with the real Dovecot, beside Debian's Postfix: unix: and inet:, an answer for each recipient, quota, unknown users."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers
from support.ports import free_ports

_MISSING = peers.missing() or (
    None if Path("/usr/lib/dovecot/lmtp").exists() else "dovecot-lmtpd is not installed"
)
pytestmark = [pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""), pytest.mark.xdist_group("peers")]

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination = here.test
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
virtual_mailbox_domains = box.test
virtual_mailbox_maps = static:x
virtual_transport = lmtp:unix:{top}/lmtp.sock
local_recipient_maps =
mailbox_transport = lmtp:inet:127.0.0.1:{lmtp}
recipient_delimiter =
alias_maps =
alias_database =
disable_dns_lookups = yes
in_flow_delay = 0
maximal_backoff_time = 4000s
minimal_backoff_time = 1000s
notify_classes =
"""

DOVECOT = """\
protocols = lmtp
base_dir = {top}/dovecot/run
state_dir = {top}/dovecot/state
log_path = {top}/dovecot/log
ssl = no
mail_location = maildir:{top}/dovecot/mail/%n
mail_plugins = quota
plugin {
  quota = maildir:user
  quota_rule = *:storage=10M
  quota_grace = 0
}
lmtp_rcpt_check_quota = yes
auth_username_format = %Ln
first_valid_uid = 1
first_valid_gid = 1
userdb {
  driver = passwd-file
  args = username_format=%n {top}/dovecot/users
}
passdb {
  driver = static
  args = nopassword=y
}
service lmtp {
  unix_listener {top}/lmtp.sock {
    mode = 0666
  }
  inet_listener lmtp {
    address = 127.0.0.1
    port = {lmtp}
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
"""

USERS = """\
clean:x:65534:65534::/nonexistent::
two:x:65534:65534::/nonexistent::
full:x:65534:65534::/nonexistent::userdb_quota_rule=*:bytes=1
"""


class System:
    """One mail system with a Dovecot of its own."""

    def __init__(self, name: str) -> None:
        self.top = Path(tempfile.mkdtemp(prefix=f"dovecot-{name}-"))
        self.smtp, lmtp = free_ports(2)
        self.lmtp = lmtp
        self.peer = peers.Peer(name, self.top, MAIN_CF, f"127.0.0.1:{self.smtp} inet n - n - - smtpd\n", values={"lmtp": lmtp})
        home = self.top / "dovecot"
        for directory in (home, home / "run", home / "state", home / "mail"):
            directory.mkdir()
            directory.chmod(0o755)
        shutil.chown(home / "mail", 65534, 65534)
        (home / "users").write_text(USERS)
        (home / "conf").write_text(DOVECOT.replace("{top}", str(self.top)).replace("{lmtp}", str(lmtp)))
        self.dovecot: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        home = self.top / "dovecot"
        with (home / "out").open("wb") as out:
            self.dovecot = subprocess.Popen(["dovecot", "-F", "-c", str(home / "conf")], stdout=out, stderr=out)

        def is_up() -> bool:
            assert self.dovecot is not None and self.dovecot.poll() is None, (home / "out").read_text() + (home / "log").read_text()
            return (self.top / "lmtp.sock").exists()

        peers.wait_until(is_up, 30, "dovecot")
        self.peer.start()

    def send(self, recipients: list[str]) -> None:
        talk = peers.Conversation(peers.connect("127.0.0.1", self.smtp))
        replies = talk.message("", recipients, b"From: a@x.test\r\nSubject: s\r\nMessage-Id: <1@x.test>\r\n\r\n.dot\r\n..two\r\n")
        assert "queued as" in replies[-2], replies

    def fates(self, domain: str) -> list[str]:
        found = []
        for line in self.peer.log().splitlines():
            match = re.search(rf"lmtp\S*: \w+: (to=<\w+@{domain}>, relay=.*?), delay=.*?(dsn=.*)", line)
            if match:
                text = re.sub(r"<\S+> \S+ Saved", "<> ID Saved", f"{match[1]} {match[2]}".replace(str(self.top), "TOP"))
                found.append(text.replace(str(self.lmtp), "LMTP"))
        return sorted(found)

    def box(self, user: str) -> list[str]:
        return [path.read_text("latin-1") for path in (self.top / "dovecot" / "mail" / user / "new").glob("*")]

    def close(self) -> None:
        self.peer.stop()
        if self.dovecot is not None:
            self.dovecot.terminate()
            self.dovecot.wait(15)
        shutil.rmtree(self.top, ignore_errors=True)


@pytest.fixture(scope="module")
def systems() -> Iterator[list[System]]:
    made: list[System] = []
    try:
        for name in peers.NAMES:
            made.append(System(name))
            made[-1].start()
        yield made
    finally:
        for system in made:
            system.close()


@pytest.mark.parametrize("domain", ["box.test", "here.test"])
def test_an_answer_for_each_recipient(systems: list[System], domain: str) -> None:
    """virtual_transport = lmtp:unix:..., mailbox_transport = lmtp:inet:...: delivered, over quota, unknown."""
    for system in systems:
        system.send([f"{user}@{domain}" for user in ("clean", "full", "nobody", "two")])
        peers.wait_until(lambda system=system: len(system.fates(domain)) >= 4, 20, system.peer.log()[-3000:])  # type: ignore[misc]
    theirs, ours = (system.fates(domain) for system in systems)
    assert ours == theirs
    assert ["status=sent" in line for line in ours] == [True, False, False, True]
    assert "User doesn't exist" in ours[2] and "status=bounced" in ours[2]
    assert "uota" in ours[1]
    for system in systems:
        for user in ("clean", "two"):
            text = system.box(user)[-1]
            assert text.endswith("\n\n.dot\n..two\n")
            assert text.startswith("Return-Path: <>\n")


def test_a_dovecot_that_is_down_defers(systems: list[System]) -> None:
    for system in systems:
        assert system.dovecot is not None
        system.dovecot.terminate()
        system.dovecot.wait(15)
        (system.top / "lmtp.sock").unlink(missing_ok=True)
        system.dovecot = None
        system.send(["down@box.test"])
        system.send(["down@here.test"])
        system.peer.wait_log(r"to=<down@\w+\.test>.*status=", count=2)
    for domain in ("box.test", "here.test"):
        theirs, ours = ([line for line in system.fates(domain) if "<down@" in line] for system in systems)
        assert ours == theirs
        assert len(ours) == 1 and "status=deferred" in ours[0]

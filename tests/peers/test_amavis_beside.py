"""The tutorial's chapter 6.2 and FILTER_README's advanced filter, with the real amavisd-new: by SMTP, by LMTP, by its pipe client.

amavisd listens on a port of its own, hands back to an smtpd without content_filter, and asks a stand-in for a virus scanner. The same
on Debian's Postfix.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers
from support.ports import free_ports

_MISSING = peers.missing() or (None if Path("/usr/sbin/amavisd").exists() else "amavisd-new is not installed")
pytestmark = [pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""), pytest.mark.xdist_group("peers")]

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS" + b"-TEST-FILE!$H+H*"

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
virtual_mailbox_domains = box.test
virtual_mailbox_maps = inline:{ { a@box.test = a/ }, { clean@box.test = clean/ }, { bad@box.test = bad/ }, { two@box.test = two/ } }
virtual_mailbox_base = {mail}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
alias_maps =
alias_database =
disable_dns_lookups = yes
in_flow_delay = 0
"""

MASTER_CF = """\
127.0.0.1:{smtp} inet n - n - - smtpd -o content_filter=smtp-amavis:[127.0.0.1]:{amavis}
127.0.0.1:{lmtp} inet n - n - - smtpd -o content_filter=lmtp-amavis:inet:127.0.0.1:{amavislmtp}
127.0.0.1:{pipe} inet n - n - - smtpd -o content_filter=filtro:
smtp-amavis unix - - n - 2 smtp
  -o smtp_data_done_timeout=1200s -o smtp_send_xforward_command=yes -o disable_dns_lookups=yes
lmtp-amavis unix - - n - 2 lmtp
  -o lmtp_data_done_timeout=1200s -o lmtp_send_xforward_command=yes -o disable_dns_lookups=yes
filtro unix - n n - 10 pipe
  flags=q user=amavis argv={top}/submit ${sender} ${recipient}
127.0.0.1:{back} inet n - n - - smtpd
  -o content_filter= -o smtpd_authorized_xforward_hosts=127.0.0.0/8 -o local_recipient_maps= -o relay_recipient_maps=
  -o smtpd_restriction_classes= -o smtpd_client_restrictions= -o smtpd_helo_restrictions= -o smtpd_sender_restrictions=
  -o smtpd_recipient_restrictions=permit_mynetworks,reject -o mynetworks=127.0.0.0/8 -o strict_rfc821_envelopes=yes
"""

AMAVIS = """\
use strict;
$MYHOME = '{home}'; $TEMPBASE = "$MYHOME/tmp"; $QUARANTINEDIR = undef; $db_home = "$MYHOME/db";
$lock_file = "$MYHOME/lock"; $pid_file = "$MYHOME/pid"; $unix_socketname = "$MYHOME/sock";
$interface_policy{'SOCK'} = 'SUBMIT';
$policy_bank{'SUBMIT'} = { protocol => 'AM.PDP', auth_required_release => 0 };
$interface_policy{'{amavislmtp}'} = 'LMTP';
$policy_bank{'LMTP'} = { protocol => 'LMTP' };
$daemon_user = 'amavis'; $daemon_group = 'amavis'; $max_servers = 1; $max_requests = 20;
$mydomain = 'here.test'; $myhostname = 'amavis.here.test';
$inet_socket_port = [{amavis}, {amavislmtp}]; $inet_socket_bind = '127.0.0.1'; @inet_acl = ('127.0.0.1');
$enable_db = 0; $enable_global_cache = 0; $enable_zmq = 0; $DO_SYSLOG = 0; $LOGFILE = "$MYHOME/log"; $log_level = 2;
@local_domains_maps = (1); $sa_local_tests_only = 1;
@bypass_spam_checks_maps = (1); @bypass_banned_checks_maps = (1); @bypass_header_checks_maps = (1);
$enable_dkim_verification = 0; $enable_dkim_signing = 0;
$forward_method = 'smtp:[127.0.0.1]:{back}'; $notify_method = $forward_method;
$final_virus_destiny = D_BOUNCE; $virus_admin = undef; $warnvirussender = 0; @viruses_that_fake_sender_maps = (0);
$X_HEADER_TAG = 'X-Virus-Scanned'; $X_HEADER_LINE = 'amavis at here.test';
@decoders = (['mail', \\&do_mime_decode]);
@av_scanners = (['stand-in', '{home}/scan', '{}', [0], [1], qr/^FOUND (.+)$/m]); @av_scanners_backup = ();
1;
"""

SCAN = '#!/bin/sh\nif grep -rq EICAR-STANDARD "$@"; then echo "FOUND Eicar-Test"; exit 1; fi\nexit 0\n'


class System:
    """One mail system with an amavisd of its own."""

    def __init__(self, name: str) -> None:
        self.top = Path(tempfile.mkdtemp(prefix=f"amavis-{name}-"))
        self.home = self.top / "amavis"
        self.conf = self.top / "amavis.conf"
        names = ("smtp", "lmtp", "pipe", "back", "amavis", "amavislmtp")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.peer = peers.Peer(name, self.top, MAIN_CF, MASTER_CF, values={"mail": self.top / "mail", **self.ports})
        for directory in (self.home, self.home / "tmp", self.home / "db"):
            directory.mkdir()
            shutil.chown(directory, "amavis", "amavis")
        known = {"home": self.home, **self.ports}
        self.conf.write_text(re.sub(r"\{(\w+)\}", lambda m: str(known.get(m[1], m[0])), AMAVIS))
        (self.home / "scan").write_text(SCAN)
        (self.home / "scan").chmod(0o755)
        submit = Path("/usr/sbin/amavisd-submit").read_text()
        submit = re.sub(r"^(\s*\$socketname\s*=).*$", rf"\1 '{self.home}/sock';", submit, flags=re.MULTILINE)
        submit = re.sub(r"^(\s*(?:my\(?)?\$tempbase\)?\s*=).*$", rf"\1 '{self.home}/tmp';", submit, flags=re.MULTILINE)
        submit = submit.replace("# 'delivery_care_of=server'", "'delivery_care_of=server'").replace("#   'delivery_care_of", "'delivery_care_of")
        (self.top / "submit").write_text(submit)
        (self.top / "submit").chmod(0o755)
        self.amavis: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.home / "out").open("wb") as out:
            self.amavis = subprocess.Popen(["amavisd", "-c", str(self.conf), "foreground"], stdout=out, stderr=out)

        def is_up() -> bool:
            assert self.amavis is not None and self.amavis.poll() is None, (self.home / "out").read_text()
            try:
                socket.create_connection(("127.0.0.1", self.ports["amavislmtp"]), 5).close()
            except OSError:
                return False
            return True

        peers.wait_until(is_up, 30, "amavisd")
        self.peer.start()

    def send(self, port: str, recipients: list[str], body: bytes) -> None:
        talk = peers.Conversation(peers.connect("127.0.0.1", self.ports[port], "127.0.0.5"))
        content = b"From: a@box.test\r\nTo: x@box.test\r\nSubject: s\r\nMessage-Id: <1@x.test>\r\n\r\n" + body + b"\r\n"
        replies = talk.message("a@box.test", [f"{who}@box.test" for who in recipients], content)
        assert "queued as" in replies[-2], replies

    def box(self, user: str) -> list[str]:
        return [path.read_text("latin-1") for path in sorted((self.top / "mail" / user / "new").glob("*"))]

    def wait_box(self, user: str, count: int) -> list[str]:
        def said() -> str:
            log = self.home / "log"
            return f"{user}: {self.peer.log()[-2500:]}\n{log.read_text()[-1500:] if log.exists() else ''}"

        try:
            peers.wait_until(lambda: len(self.box(user)) >= count, 20, "")
        except AssertionError:
            raise AssertionError(said()) from None
        return self.box(user)

    def close(self) -> None:
        self.peer.stop()
        if self.amavis is not None:
            self.amavis.terminate()
            self.amavis.wait(15)
        shutil.rmtree(self.top, ignore_errors=True)


@pytest.fixture(scope="module", params=peers.NAMES)
def system(request: pytest.FixtureRequest) -> Iterator[System]:
    made = System(request.param)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("way", ["smtp", "lmtp"])
def test_there_and_back(system: System, way: str) -> None:
    before = system.box("clean")
    system.send(way, ["clean", "two"], b"nothing to see")
    [text] = [text for text in system.wait_box("clean", len(before) + 1) if text not in before]
    system.wait_box("two", len(before) + 1)
    assert "X-Virus-Scanned: amavis at here.test" in text
    hops = [" ".join(hop.split()) for hop in re.findall(r"^Received: (.*(?:\n[ \t].*)*)", text, re.MULTILINE)]
    assert len(hops) == 3, hops
    assert hops[0].startswith("from localhost (unknown [127.0.0.1]) by mail.here.test")
    assert hops[1].startswith("from mail.here.test ([127.0.0.1]) by localhost (amavis.here.test")
    assert hops[2].startswith("from client.test (unknown [127.0.0.5]) by mail.here.test")
    system.peer.flush_and_wait()
    log = system.peer.log()
    first, last = re.findall(r"^Received:.*?\bid (\w+)", text, re.MULTILINE | re.DOTALL)[0], hops[2].split(" id ")[1].split()[0].strip(";")
    assert re.search(rf"smtpd\S*: {first}: client=unknown\[127\.0\.0\.1\], orig_queue_id={last}, orig_client=unknown\[127\.0\.0\.5\]", log)
    agent = rf"/{way}\[\d+\]: {last}: to=<clean@box\.test>, relay=127\.0\.0\.1\[127\.0\.0\.1\]:{system.ports['amavis' if way == 'smtp' else 'amavislmtp']}"
    assert re.search(agent + rf".*status=sent \(250 2\.0\.0.*queued as {first}\)", log), log[-3000:]
    system.peer.flush_and_wait()


@pytest.mark.parametrize("way", ["smtp", "lmtp"])
def test_a_virus_comes_back_to_its_sender(system: System, way: str) -> None:
    before = len(system.box("a"))
    system.send(way, ["bad"], EICAR)
    notice = system.wait_box("a", before + 1)[-1]
    assert "Eicar-Test" in notice or "VIRUS" in notice
    assert system.box("bad") == []
    system.peer.flush_and_wait()


def test_the_pipe_of_the_tutorial(system: System) -> None:
    before = len(system.box("clean"))
    system.send("pipe", ["clean"], b"through the pipe")
    text = system.wait_box("clean", before + 1)[-1]
    assert "through the pipe" in text and "X-Virus-Scanned" in text
    system.peer.flush_and_wait()

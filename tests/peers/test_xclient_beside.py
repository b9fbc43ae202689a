"""XCLIENT and XFORWARD beside Debian's Postfix: the same replies, log lines, Received headers and facts for the delivery agents.

Source: XCLIENT_README, XFORWARD_README. A script: each line is sent and its reply read; ``> line`` is sent at once with the next.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import peers
from support.ports import free_ports

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.xdist_group("peers"),
]

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination = here.test
mynetworks = 127.0.0.0/8 192.0.2.0/24
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
local_recipient_maps =
local_transport = show
default_transport = show
alias_maps =
alias_database =
disable_dns_lookups = yes
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_authorized_xforward_hosts = !127.0.0.3, 127.0.0.0/24
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_client_restrictions = check_client_access inline:{ { 192.0.2.66 = REJECT bad client }, { bad.client.test = REJECT bad name } }
smtpd_helo_restrictions = check_helo_access inline:{ { bad.helo.test = REJECT bad helo } }
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 100
smtpd_hard_error_limit = 100
local_header_rewrite_clients = permit_mynetworks
notify_classes =
in_flow_delay = 0
"""

MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{early} inet n - n - - smtpd -o smtpd_delay_reject=no
127.0.0.1:{six} inet n - n - - smtpd -o inet_protocols=all
  -o smtpd_sender_restrictions=check_reverse_client_hostname_access,inline:{{bad.client.test=reject}},reject_unknown_client_hostname
  -o smtpd_discard_ehlo_keywords=enhancedstatuscodes,xclient
show unix - n n - - pipe
  flags=R user=nobody argv={top}/show {top}/out/{name} ${client_address} ${client_hostname} ${client_port} ${client_helo}
  ${client_protocol} ${sasl_username}
"""

SHOW = """\
#!/bin/sh
shift; exec >>"$0.out.$$"; echo "$@"; cat
mv "$0.out.$$" "$0.done.$$"
"""

MESSAGE = ["MAIL FROM:<a@here.test>", "RCPT TO:<b@here.test>", "DATA", "> Subject: {0}", "> To: x", "> ", "> body", "."]
END = ["QUIT"]

# name -> (source address, listener, lines)
SCRIPTS: dict[str, tuple[str, str, list[str]]] = {
    "unauthorized": ("127.0.0.3", "port", ["EHLO x.test", "XCLIENT ADDR=192.0.2.1", "XFORWARD ADDR=192.0.2.1", "XFORWARD", *END]),
    "ehlo": ("127.0.0.1", "port", ["EHLO x.test", "HELO x.test", *END]),
    "syntax": ("127.0.0.1", "port", [
        "EHLO x.test", "XCLIENT", "XCLIENT ADDR", "XCLIENT FOO=bar", "XCLIENT ADDR=300.1.1.1", "XCLIENT ADDR=host.test",
        "XCLIENT NAME=-bad-", "XCLIENT NAME=a+2", "XCLIENT NAME=a+zz", "XCLIENT PROTO=UUCP", "XCLIENT PORT=x", "XCLIENT PORT=99999",
        "XCLIENT HELO=", "XCLIENT HELO=a+20b", "XCLIENT ADDR=", "XCLIENT LOGIN=", "XCLIENT DESTADDR=nix", "XCLIENT DESTPORT=0x1",
        "XCLIENT NAME=" + "a" * 300, "XCLIENT ADDR=IPV6:zz", "XCLIENT ADDR=::1", "XCLIENT ADDR=127.1", "XCLIENT =x",
        "XCLIENT ADDR=192.0.2.1 FOO=x", *END]),
    "xfsyntax": ("127.0.0.1", "port", [
        "EHLO x.test", "XFORWARD", "XFORWARD ADDR", "XFORWARD FOO=bar", "XFORWARD ADDR=300.1.1.1", "XFORWARD ADDR=host.test",
        "XFORWARD NAME=-bad-", "XFORWARD NAME=a+2", "XFORWARD PROTO=UUCP", "XFORWARD PORT=x", "XFORWARD PORT=99999",
        "XFORWARD HELO=", "XFORWARD HELO=a+20b", "XFORWARD HELO=a+00b", "XFORWARD ADDR=", "XFORWARD SOURCE=elsewhere",
        "XFORWARD SOURCE=local", "XFORWARD IDENT=" + "b" * 300, "XFORWARD NAME=" + "a" * 300, "XFORWARD PROTO=" + "p" * 65,
        "XFORWARD ADDR=IPV6:zz", "XFORWARD ADDR=IPv6:2001:DB8::1", "XFORWARD ADDR=2001:db8::1", "XFORWARD DOMAIN=x",
        "XFORWARD IDENT=a+20b", "XFORWARD IDENT=a<b>", "XFORWARD ADDR=192.0.2.1 FOO=x", *END]),
    "transaction": ("127.0.0.1", "port", ["EHLO x.test", "MAIL FROM:<a@here.test>", "XCLIENT ADDR=192.0.2.1",
                    "XFORWARD ADDR=192.0.2.1", "RSET", "XFORWARD ADDR=192.0.2.1", *END]),
    "nohelo": ("127.0.0.1", "port", ["XFORWARD ADDR=192.0.2.1", "XCLIENT ADDR=192.0.2.1", "XCLIENT ADDR=192.0.2.2", *END]),
    "xclient": ("127.0.0.1", "port", ["EHLO x.test", "XCLIENT NAME=spike.out.test ADDR=192.0.2.22 PORT=1234", "EHLO spike.helo.test",
                *MESSAGE, *END]),
    "steps": ("127.0.0.1", "port", ["EHLO x.test", "XCLIENT HELO=first.test PROTO=SMTP LOGIN=me", "XCLIENT NAME=spike.out.test",
              "XCLIENT ADDR=192.0.2.23", "XCLIENT ADDR=192.0.2.24", *MESSAGE, *END]),
    "stepsehlo": ("127.0.0.1", "port", ["XCLIENT HELO=first.test PROTO=ESMTP ADDR=192.0.2.25", "EHLO second.test", *MESSAGE, *END]),
    "unavailable": ("127.0.0.1", "port", ["EHLO x.test",
                    "XCLIENT NAME=[UNAVAILABLE] HELO=[unavailable] LOGIN=[UNAVAILABLE] PORT=[UNAVAILABLE] ADDR=[UNAVAILABLE]",
                    "EHLO y.test", *MESSAGE, *END]),
    "tempunavail": ("127.0.0.1", "port", ["EHLO x.test", "XCLIENT NAME=[tempunavail] ADDR=198.51.100.7",
                    "EHLO y.test", *MESSAGE, *END]),
    "six": ("127.0.0.1", "six", ["EHLO x.test", "XCLIENT NAME=six.test REVERSE_NAME=six.test ADDR=IPV6:2001:DB8::0001 DESTADDR=192.0.2.9 DESTPORT=2525",
            "EHLO y.test", *MESSAGE, *END]),
    "sixnoname": ("127.0.0.1", "six", ["EHLO x.test", "XCLIENT ADDR=IPv6:2001:db8::2 NAME=[TEMPUNAVAIL]", "EHLO y.test", *MESSAGE[:2],
                  "QUIT"]),
    "reverse": ("127.0.0.1", "six", ["XCLIENT NAME=x.test", *MESSAGE[:2], "RSET", "XCLIENT NAME=bad.client.test", *MESSAGE[:2], "RSET",
                "XCLIENT NAME=y.test REVERSE_NAME=bad.client.test", *MESSAGE[:2], "QUIT"]),
    "order": ("127.0.0.3", "port", ["EHLO x.test", "MAIL FROM:<a@here.test>", "XCLIENT", "XCLIENT ADDR=192.0.2.1", "XFORWARD x", "QUIT"]),
    "lower": ("127.0.0.1", "port", ["EHLO x.test", "xforward foo=bar", "xforward ident=x name=[unavailable]", "xclient foo=bar",
              "xclient proto=esmtp helo=a.b", *MESSAGE, "QUIT"]),
    "protoonly": ("127.0.0.2", "port", ["XFORWARD PROTO=SMTP", *MESSAGE, "XFORWARD SOURCE=LOCAL", *MESSAGE, "XFORWARD HELO=a+20b+01+22@;()\\<x>",
                  *MESSAGE, "XFORWARD PORT=25", *MESSAGE, "QUIT"]),
    "pipelined": ("127.0.0.1", "port", ["EHLO x.test", "> XCLIENT ADDR=192.0.2.50", "EHLO y.test", "NOOP", *MESSAGE, "QUIT"]),
    "badclient": ("127.0.0.1", "port", ["EHLO x.test", "XCLIENT ADDR=192.0.2.66", "EHLO y.test", *MESSAGE[:2], "QUIT"]),
    "badname": ("127.0.0.1", "port", ["EHLO x.test", "XCLIENT NAME=bad.client.test", "EHLO y.test", *MESSAGE[:2], "QUIT"]),
    "badhelo": ("127.0.0.1", "port", ["EHLO x.test", "XCLIENT HELO=bad.helo.test", *MESSAGE[:2], "QUIT"]),
    "early": ("127.0.0.1", "early", ["EHLO x.test", "XCLIENT ADDR=192.0.2.66", "EHLO y.test", "MAIL FROM:<a@here.test>",
              "XCLIENT ADDR=192.0.2.1", "QUIT"]),
    "earlyhelo": ("127.0.0.1", "early", ["EHLO x.test", "XCLIENT HELO=bad.helo.test", "MAIL FROM:<a@here.test>", "QUIT"]),
    "relay": ("127.0.0.1", "port", ["EHLO x.test", "XCLIENT ADDR=198.51.100.1", "EHLO y.test", "MAIL FROM:<a@here.test>",
              "RCPT TO:<x@else.test>", "QUIT"]),
    "xforward": ("127.0.0.2", "port", ["EHLO x.test",
                 "XFORWARD NAME=spike.out.test ADDR=192.0.2.22 PORT=4321",
                 "XFORWARD PROTO=ESMTP HELO=spike.helo.test IDENT=ABC123 SOURCE=REMOTE", *MESSAGE, *MESSAGE, *END]),
    "xfpart": ("127.0.0.2", "port", ["EHLO x.test", "XFORWARD NAME=spike.out.test", *MESSAGE, "XFORWARD IDENT=XYZ", *MESSAGE,
               "XFORWARD ADDR=[UNAVAILABLE] SOURCE=LOCAL", *MESSAGE, *END]),
    "xflocal": ("127.0.0.2", "port", ["EHLO x.test",
                "XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] HELO=[UNAVAILABLE] PROTO=smtp IDENT=[UNAVAILABLE] SOURCE=[UNAVAILABLE]", *MESSAGE, *END]),
    "xfproto": ("127.0.0.2", "port", ["EHLO x.test", "XFORWARD ADDR=192.0.2.77 PROTO=UUCP HELO=a+3Db+2Bc", *MESSAGE, *END]),
    "xfrset": ("127.0.0.2", "port", ["EHLO x.test", "XFORWARD ADDR=192.0.2.22", "RSET", *MESSAGE, "XFORWARD ADDR=192.0.2.23",
               "EHLO again.test", *MESSAGE, *END]),
    "xfreject": ("127.0.0.2", "port", ["EHLO x.test", "XFORWARD ADDR=192.0.2.66 HELO=bad.helo.test IDENT=QQ", "MAIL FROM:<a@here.test>",
                 "RCPT TO:<b@>", "RCPT TO:<b@here.test>", "RSET", "EHLO bad.helo.test", "XFORWARD ADDR=192.0.2.66 IDENT=QQ",
                 "MAIL FROM:<a@here.test>", "RCPT TO:<b@here.test>", "QUIT"]),
    "both": ("127.0.0.1", "port", ["EHLO x.test", "XCLIENT NAME=c.test ADDR=127.0.0.9", "EHLO y.test",
             "XFORWARD NAME=f.test ADDR=192.0.2.30 IDENT=II", *MESSAGE, *END]),
}  # fmt: skip


class System:
    """One of the two, with what came of every script."""

    def __init__(self, name: str) -> None:
        self.top = Path(tempfile.mkdtemp(prefix=f"xclient-{name}-"))
        self.ports = dict(zip(("port", "early", "six"), free_ports(3), strict=True))
        self.peer = peers.Peer(name, self.top, MAIN_CF, MASTER_CF, values=dict(self.ports))
        show = self.peer.mail / "show"
        show.write_text(SHOW)
        show.chmod(0o755)
        master = self.peer.etc / "master.cf"
        master.write_text(master.read_text().replace(f"{self.top}/show", str(show)))
        self.replies: dict[str, list[str]] = {}
        self.logs: dict[str, str] = {}
        self.mail: dict[str, list[str]] = {}

    def run(self) -> None:
        self.peer.start()
        for name in SCRIPTS:
            before = len(self.peer.log())
            self.replies[name] = self._script(name)
            self.peer.wait_log(r"disconnect from", count=len(self.replies))
            self.peer.flush_and_wait()
            self.logs[name] = self.peer.log()[before:]
            found = []
            for path in self.peer.mail.glob("show.done.*"):
                found.append(path.read_text())
                path.unlink()
            self.mail[name] = found

    def _script(self, name: str) -> list[str]:
        source, listener, lines = SCRIPTS[name]
        talk = peers.Conversation(peers.connect("127.0.0.1", self.ports[listener], source))
        replies = [talk.reply()]
        held = b""
        for line in lines:
            if line.startswith("> "):
                held += line[2:].format(name).encode() + b"\r\n"
                continue
            talk.send(held + line.encode() + b"\r\n")
            held = b""
            replies.append(f"{line[:80]} -> {talk.reply()}")
        talk.close()
        return replies

    def log_of(self, name: str) -> list[str]:
        """smtpd's and cleanup's lines of one script, without dates and numbers."""
        lines = []
        for line in self.logs[name].splitlines():
            match = re.search(r" postfix[^/ ]*/(?:\S*/)?(smtpd)\[\d+\]: (.*)", line)
            if match:
                lines.append(re.sub(r"(orig_client=)?client=(\S+)", r"\1client=\2", peers.normal(match[2])))
        return lines

    def close(self) -> None:
        self.peer.stop()
        shutil.rmtree(self.top, ignore_errors=True)


@pytest.fixture(scope="module")
def systems() -> Iterator[tuple[System, System]]:
    made: list[System] = []
    try:
        for name in peers.NAMES:
            system = System(name)
            made.append(system)
            system.run()
        yield made[0], made[1]
    finally:
        for system in made:
            system.close()


@pytest.mark.parametrize("name", SCRIPTS)
def test_replies(systems: tuple[System, System], name: str) -> None:
    theirs, ours = systems
    assert [peers.normal(x) for x in ours.replies[name]] == [peers.normal(x) for x in theirs.replies[name]]


@pytest.mark.parametrize("name", SCRIPTS)
def test_log(systems: tuple[System, System], name: str) -> None:
    theirs, ours = systems
    assert ours.log_of(name) == theirs.log_of(name)


def _shown(mail: str) -> str:
    """What does not depend on ports, process numbers or the clock."""
    text = peers.normal(mail)
    return re.sub(r"\b\d{5}\b", "PORT", text)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_agents_hear_of_the_client(systems: tuple[System, System], name: str) -> None:
    theirs, ours = systems
    assert sorted(_shown(x) for x in ours.mail[name]) == sorted(_shown(x) for x in theirs.mail[name])

"""Notices of many kinds beside Debian's Postfix: each way mail can fail (or be reported as delivered) makes one notice, whose parts,
fields and reasons must be the same.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import peers
from support.instance import free_port
from support.notice_shape import notice_shape
from support.smtp_sink import SmtpSink
from support.smtp_sink_thread import SinkThread

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.xdist_group("peers"),
    pytest.mark.timeout(200),
]

MAIN_CF = """\
myhostname = mail.example.com
mydomain = example.com
mydestination = local.test
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
alias_maps = hash:{etc}/aliases
alias_database =
local_recipient_maps =
relay_domains = static:all
smtpd_reject_unlisted_recipient = no
disable_dns_lookups = yes
virtual_alias_domains = va.test
virtual_mailbox_domains = box.test
virtual_mailbox_maps = inline:{ some@box.test=box/ }
virtual_mailbox_base = {top}/mail
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
relocated_maps = inline:{ gone@moved.test=new@elsewhere.test }
notify_classes =
maximal_backoff_time = 4000s
hopcount_limit = 5
transport_maps = regexp:{etc}/transport
"""
MASTER_CF = """\
{port} inet n - n - - smtpd
fail unix - n n - - pipe user=nobody argv={top}/fail $user
limited unix - n n - - pipe user=nobody size=10 argv={top}/fail 0
"""
TRANSPORT = """\
/@retry\\.example$/ retry:4.4.1 try later
/@exit\\.test$/ fail:
/@limited\\.test$/ limited:
/@error\\.test$/ error:5.1.3 this is not wanted here
/@plain\\.test$/ error:some words
/@discard\\.test$/ discard:quietly
/@smtp\\.test$/ smtp:[127.0.0.1]:{sink}
/@dead\\.test$/ error:5.4.4 host not found
"""
ALIASES = """\
loop: loop2
loop2: loop
command: "|{top}/fail 69"
command65: "|{top}/fail 65"
signal: "|kill -9 $$"
included: :include:{top}/empty
list: ghost@va.test
owner-list: list-owner@retry.example
ok: fine@discard.test
"""
FAIL = """\
#!/bin/sh
cat >/dev/null
case $1 in
    words) echo "no, thank you"; exit 69;;
    lines) echo "first line"; echo "second line"; exit 77;;
    *) exit "$1";;
esac
"""


@dataclass(frozen=True)
class Case:
    name: str
    recipients: tuple[str, ...]
    mail: str = ""
    rcpt: str = ""
    content: bytes = b"Subject: s\r\nFrom: a@b.test\r\nTo: c@d.test\r\nDate: x\r\nMessage-Id: <1@x>\r\n\r\nbody\r\n"


_EIGHT = "Subject: ü\r\nFrom: a@b.test\r\nMessage-Id: <1@x>\r\n\r\nñ\r\n".encode()
CASES = [
    *(Case(f"exit{code}", (f"{code}@exit.test",)) for code in (64, 65, 66, 67, 68, 69, 70, 72, 73, 76, 77, 78, 1)),
    Case("exitwords", ("words@exit.test",)),
    Case("exitlines", ("lines@exit.test",)),
    Case("pipesize", ("x@limited.test",)),
    Case("error", ("x@error.test",)),
    Case("errorplain", ("x@plain.test",)),
    Case("two", ("x@error.test", "y@error.test")),
    Case("mixed", ("x@error.test", "fine@discard.test")),
    Case("alias", ("ghost@va.test",)),
    Case("box", ("ghost@box.test",)),
    Case("moved", ("gone@moved.test",)),
    Case("local", ("nobody-such@local.test",)),
    Case("aliasloop", ("loop@local.test",)),
    Case("command", ("command@local.test",)),
    Case("command65", ("command65@local.test",)),
    Case("rcpt550", ("rcpt550@smtp.test",)),
    Case("rcpt552", ("rcpt552@smtp.test",)),
    Case("dot554", ("dot@smtp.test",)),
    Case("envid", ("x@error.test",), "ENVID=abc+2Bdef"),
    Case("hdrs", ("x@error.test",), "RET=HDRS"),
    Case("full", ("x@error.test",), "RET=FULL"),
    Case("orcpt", ("x@error.test",), "", "ORCPT=rfc822;o+2Brig@there.test"),
    Case("success", ("x@discard.test",), "", "NOTIFY=SUCCESS"),
    Case("successbox", ("some@box.test",), "RET=HDRS ENVID=e1", "NOTIFY=SUCCESS,FAILURE"),
    Case("successalias", ("ok@local.test",), "", "NOTIFY=SUCCESS"),
    Case("successsmtp", ("fine@smtp.test",), "", "NOTIFY=SUCCESS"),
    Case("eightbit", ("x@error.test",), "BODY=8BITMIME", "", _EIGHT),
    Case("eighthdrs", ("x@error.test",), "RET=HDRS", "", _EIGHT),
    Case("dots", ("x@error.test",), "", "", b"Subject: s\r\nMessage-Id: <1@x>\r\n\r\n.\r\n..\r\nend\r\n"),
    Case("noheaders", ("x@error.test",), "", "", b"only a body\r\n"),
    Case("longline", ("x@error.test",), "", "", b"Subject: s\r\nMessage-Id: <1@x>\r\n\r\n" + b"x" * 1500 + b"\r\n"),
]


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, dict[str, list[list[str]]]]]:
    base = Path(tempfile.mkdtemp(prefix="kinds-"))
    base.chmod(0o755)
    found: dict[str, dict[str, list[list[str]]]] = {}
    replies = {
        "RCPT:rcpt550@smtp.test": "550 5.1.1 unknown here",
        "RCPT:rcpt552@smtp.test": "552-5.2.2 this box\r\n552 5.2.2 is full",
        "DOT": ["554 5.7.1 not this"] * 1 + ["250 2.0.0 taken"],
        "EHLO": "250-sink.example\r\n250 8BITMIME",
    }
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, base, True)
        for name in peers.NAMES:
            sink = stack.enter_context(SinkThread(SmtpSink(replies)))
            top = base / name
            values = {"port": free_port(), "sink": sink.port}
            peer = peers.Peer(name, top, MAIN_CF, MASTER_CF, files={"transport": TRANSPORT, "aliases": ALIASES}, values=values)
            (top / "fail").write_text(FAIL)
            (top / "fail").chmod(0o755)
            (top / "empty").write_text("")
            assert peer.command("postalias", f"hash:{peer.etc}/aliases").returncode == 0
            peer.start()
            stack.callback(peer.stop)
            order = sorted(CASES, key=lambda case: case.name != "dot554")  # the server refuses the first content
            for case in order:
                talk = peers.Conversation(peers.connect("127.0.0.1", int(values["port"])))
                talk.reply()
                talk.ask(b"EHLO client.test")
                assert talk.ask(f"MAIL FROM:<{case.name}@retry.example> {case.mail}".encode()).startswith("250")
                for recipient in case.recipients:
                    assert talk.ask(f"RCPT TO:<{recipient}> {case.rcpt}".encode()).startswith("250"), case
                talk.ask(b"DATA")
                talk.send(case.content.replace(b"\r\n.", b"\r\n.."))
                assert talk.ask(b".").startswith("250")
                talk.close()
                if case.name == "dot554":
                    peer.wait_log(r"to=<dot@smtp\.test>.*status=bounced")
            found[name] = _collected(peer)
        yield found


def _collected(peer: peers.Peer) -> dict[str, list[list[str]]]:
    """The notices in the queue, by the case that they tell of."""
    seen: dict[str, list[list[str]]] = {}
    done: set[str] = set()
    deadline = time.monotonic() + 25
    while time.monotonic() < deadline and len(seen) < len(CASES):
        for line in peer.command("postqueue", "-j").stdout.splitlines():
            entry = json.loads(line)
            if entry["sender"] == "MAILER-DAEMON" and entry["queue_id"] not in done and entry["queue_name"] == "deferred":
                done.add(entry["queue_id"])
                data = peer.command("postcat", "-bhq", entry["queue_id"]).stdout
                case = entry["recipients"][0]["address"].partition("@")[0]
                text = [line.replace(str(peer.top), "TOP") for line in notice_shape(data)]
                seen.setdefault(case, []).append([line for line in text if "kinds-" not in line])
        time.sleep(0.3)
    return seen


TO_DO = {
    "command": "local(8): Diagnostic-Code is x-unix for a command",
    "command65": "local(8): Diagnostic-Code is x-unix for a command",
    "successbox": "success reports say by what: delivery via virtual: ...",
    "successsmtp": "success reports say by what: delivery via host[address]: ...",
    "successalias": "success reports say by what: delivery via local: ...",
}


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_the_same_notice(told: dict[str, dict[str, list[list[str]]]], name: str) -> None:
    if name in TO_DO:
        assert told["estafeta"].get(name) and len(told["estafeta"][name]) == len(told["postfix"][name])
        pytest.xfail(TO_DO[name])
    assert sorted(told["estafeta"].get(name, [])) == sorted(told["postfix"].get(name, []))
    assert told["postfix"].get(name), "no notice to compare"

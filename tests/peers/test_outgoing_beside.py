"""Mail changed while it is delivered, beside Debian's Postfix: smtp_generic_maps and the smtp_*_checks (lmtp_*, too).

Source: generic(5), header_checks(5) FILTERS WHILE DELIVERING MAIL. What the next host gets - envelope and content - and what
is logged about the rules must be the same.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import peers
from support.ports import free_port
from support.smtp_sink import SmtpSink
from support.smtp_sink_thread import SinkThread

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.xdist_group("peers"),
]

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination = here.test
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
smtp_bind_address = 127.0.0.1
relay_domains = static:all
relay_transport = $default_transport
local_recipient_maps =
local_header_rewrite_clients =
recipient_delimiter = +
alias_maps =
alias_database =
disable_dns_lookups = yes
smtp_connection_cache_on_demand = no
lmtp_connection_cache_on_demand = no
maximal_backoff_time = 4000s
transport_maps = inline:{ { bare.test = bare:[127.0.0.1]:{sink} } { checks.test = checks:[127.0.0.1]:{sink} }
  { lmtp.test = inetlmtp:inet:127.0.0.1:{lmtp} } }
default_transport = generic:[127.0.0.1]:{sink}
generic = regexp:{etc}/generic_re, hash:{etc}/generic
"""
MASTER_CF = """\
{port} inet n - n - - smtpd
bare unix - - n - - smtp
generic unix - - n - - smtp -o smtp_generic_maps=$generic
checks unix - - n - - smtp -o smtp_header_checks=regexp:{etc}/header -o smtp_mime_header_checks=regexp:{etc}/mime
  -o smtp_nested_header_checks=regexp:{etc}/nested -o smtp_body_checks=regexp:{etc}/body -o smtp_generic_maps=$generic
inetlmtp unix - - n - - lmtp -o lmtp_header_checks=regexp:{etc}/header -o lmtp_generic_maps=$generic
"""
GENERIC = """\
user@here.test      user@isp.test
ext@here.test       other@isp.test
bare                bare@isp.test
@wild.test          one@isp.test
@same.test          @isp.test
short@here.test     nodomain
dot@here.test       dot@sub
two@here.test       first@isp.test, second@isp.test
quoted@here.test    "odd one"@isp.test
loop@here.test      loop@here.test
rcpt@far.test       changed@farther.test
"""
GENERIC_RE = "/^re-(.*)@here\\.test$/ ${1}@re.test\n"
HEADER = """\
/^X-Remove:/ IGNORE
/^X-Strip:/ STRIP gone it is
/^Received:.*with local/ IGNORE
/^X-Replace: (.*)/ REPLACE X-Replaced: $1 was here
/^X-From: (.*)/ REPLACE From: $1@here.test
/^X-Prepend:/ PREPEND X-Before: user@here.test
/^X-Prepend-To:/ PREPEND To: user@here.test
/^X-Warn:/ WARN look at this
/^X-Info:/ INFO
/^X-Reject:/ REJECT not supported here
/^X-Discard:/ DISCARD
/^X-Hold:/ HOLD
/^X-Filter:/ FILTER x:y
/^X-Redirect:/ REDIRECT a@b.test
/^X-Bcc:/ BCC a@b.test
/^X-Pass:/ PASS
/^X-Odd:/ WHATEVER this is
/^X-Empty:/ REPLACE
/^X-Bad:/ REPLACE no header
/^X-Dunno:/ DUNNO
/^From: user@isp/ REPLACE X-Saw: the new address
/^From: user@here/ REPLACE X-Saw: the old address
/^X-Lower:/ ignore
"""
MIME = "/^Content-Disposition:/ IGNORE\n/^Content-Type: text\\/(.*)/ REPLACE Content-Type: text/x-$1\n/^MIME-Version/ PREPEND X-Mime: yes\n"
NESTED = "/^Subject:/ REPLACE Subject: nested\n/^X-Nested/ WARN nested\n"
BODY = "/^secret/ REPLACE (removed)\n/^drop/ IGNORE\n/^before/ PREPEND .dot in front\n/^warn/ WARN in body\n/^stop/ REJECT no\n"


@dataclass(frozen=True)
class Case:
    name: str
    content: bytes
    sender: str = "user@here.test"
    recipients: tuple[str, ...] = ("someone@far.test",)


BASE = b"From: x@far.test\r\nDate: x\r\nMessage-Id: <1@x>\r\n"
CHECKED = ("someone@checks.test",)
PLAIN = BASE + b"\r\nbody\r\n"
MULTIPART = (
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\nContent-Type: text/plain\r\n"
    b"Content-Disposition: inline\r\nSubject: a part's\r\n\r\nsecret one\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
    b"Subject: inner\r\nX-Nested: n\r\nX-Remove: stays\r\nFrom: user@here.test\r\n\r\nwarn\r\nsecret\r\n--b--\r\nend\r\n"
)
CASES = [
    Case("sender", PLAIN),
    Case("untouched", PLAIN, "user@here.test", ("x@bare.test",)),
    Case("extension", PLAIN, "ext+more@here.test"),
    Case("bare", PLAIN, "bare@here.test"),
    Case("bareext", PLAIN, "bare+x@here.test"),
    Case("wild", PLAIN, "any@wild.test"),
    Case("same", PLAIN, "any+ext@same.test"),
    Case("nodomain", PLAIN, "short@here.test"),
    Case("subdomain", PLAIN, "dot@here.test"),
    Case("two", PLAIN, "two@here.test"),
    Case("quoted", PLAIN, "quoted@here.test"),
    Case("loop", PLAIN, "loop@here.test"),
    Case("null", PLAIN, ""),
    Case("pattern", PLAIN, "re-x+y@here.test"),
    Case("case", PLAIN, "USER@Here.Test"),
    Case("recipient", PLAIN, "x@y.test", ("rcpt@far.test", "user@here.test.far.test", "other@far.test")),
    Case("headers", b"From: The User <user@here.test>\r\nSender: ext+more@here.test\r\nReply-To: a@wild.test, b@far.test\r\n"
         b"To: bare@here.test (comment), \"Q\" <quoted@here.test>,\r\n\tgroup: user@here.test, z@far.test;\r\nCc: two@here.test\r\n"
         b"Resent-From: user@here.test\r\nErrors-To: user@here.test\r\nReturn-Path: <user@here.test>\r\nDate: x\r\n"
         b"Disposition-Notification-To: user@here.test\r\nX-Other: user@here.test\r\nBcc: user@here.test\r\nMessage-Id: <user@here.test>\r\n"
         b"Return-Receipt-To: user@here.test\r\nApparently-To: user@here.test\r\nMail-Followup-To: user@here.test\r\n\r\nuser@here.test\r\n"),
    Case("incomplete", b"From: user\r\nTo: short@here.test, dot@here.test, user@here\r\nDate: x\r\nMessage-Id: <1@x>\r\n\r\nb\r\n"),
    Case("nestedfrom", BASE + MULTIPART),
    Case("long", b"From: user@here.test\r\nTo: " + b", ".join(b"u%d@wild.test" % n for n in range(30)) + b"\r\nDate: x\r\nMessage-Id: <1@x>\r\n\r\nb\r\n"),
    Case("remove", BASE + b"X-Remove: 1\r\nX-Strip: 2\r\nX-Keep: 3\r\nX-Remove: a\r\n\tfolded\r\nX-Lower: 1\r\n\r\nb\r\n", recipients=CHECKED),
    Case("replace", BASE + b"X-Replace: me\r\nX-Replace: a\r\n\tfolded\r\n\r\nb\r\n", recipients=CHECKED),
    Case("replacefrom", b"X-From: user\r\nDate: x\r\nMessage-Id: <1@x>\r\n\r\nb\r\n", recipients=CHECKED),
    Case("prepend", BASE + b"X-Prepend: me\r\nX-Prepend-To: me\r\n\r\nb\r\n", recipients=CHECKED),
    Case("warn", BASE + b"X-Warn: me\r\nX-Info: me\r\nX-Dunno: yes\r\n\r\nb\r\n", recipients=CHECKED),
    *(Case(name, BASE + b"X-" + name.capitalize().encode() + b": me\r\nX-Remove: after\r\n\r\nsecret\r\n", recipients=CHECKED)
      for name in ("reject", "discard", "hold", "filter", "redirect", "bcc", "pass", "odd", "empty", "bad")),
    Case("order", b"From: user@here.test\r\nDate: x\r\nMessage-Id: <1@x>\r\n\r\nb\r\n", recipients=CHECKED),
    Case("mime", BASE + MULTIPART, recipients=CHECKED),
    Case("body", BASE + b"\r\nsecret a\r\ndrop it\r\nbefore\r\nwarn\r\n.dotted\r\nstop\r\nsecret b\r\nnot secret\r\n", recipients=CHECKED),
    Case("bodyend", BASE + b"\r\nx\r\ndrop", recipients=CHECKED),
    Case("nobody", BASE + b"X-Remove: x\r\n", recipients=CHECKED),
    Case("mimetext", BASE + b"MIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\nsecret\r\n", recipients=CHECKED),
    Case("several", BASE + b"X-Warn: once\r\n\r\nb\r\n", "user@here.test", ("a@checks.test", "b@checks.test")),
    Case("lmtp", b"From: user@here.test\r\nDate: x\r\nMessage-Id: <1@x>\r\nX-Remove: 1\r\n\r\nsecret\r\n", recipients=("a@lmtp.test", "b@lmtp.test")),
    Case("large", BASE + b"X-Remove: 1\r\n\r\n" + b"x" * 70 + b"\r\n" + b"".join(b"line %d\r\n" % n for n in range(100_000)) + b"secret z\r\n", recipients=CHECKED),
]  # fmt: skip


@dataclass
class Systems:
    peers: list[peers.Peer]
    sinks: dict[str, SmtpSink]
    lmtp: dict[str, SmtpSink]
    seen: dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def systems() -> Iterator[Systems]:
    top = Path(tempfile.mkdtemp(prefix="outgoing-"))
    found = Systems([], {}, {}, {})
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, top, True)
        for name in peers.NAMES:
            found.sinks[name] = stack.enter_context(SinkThread(SmtpSink()))
            found.lmtp[name] = stack.enter_context(SinkThread(SmtpSink(lmtp=True)))
            values = {"sink": found.sinks[name].port, "lmtp": found.lmtp[name].port, "port": free_port()}
            files = {"generic": GENERIC, "generic_re": GENERIC_RE, "header": HEADER, "mime": MIME, "nested": NESTED, "body": BODY}
            peer = peers.Peer(name, top / name, MAIN_CF, MASTER_CF, files=files, values=values)
            assert peer.command("postmap", f"hash:{peer.etc}/generic").returncode == 0
            peer.start()
            stack.callback(peer.stop)
            found.peers.append(peer)
            port = int(str(values["port"]))
            for case in CASES:
                conversation = peers.Conversation(peers.connect("127.0.0.1", port))
                replies = conversation.message(case.sender, case.recipients, case.content, helo=f"{case.name}.helo")
                assert replies[-2].startswith("250"), (case.name, replies)
                queue_id = replies[-2].split()[-1]
                found.seen[name, case.name] = queue_id
        for peer in found.peers:
            for case in CASES:
                peer.wait_log(rf"{found.seen[peer.name, case.name]}: to=.*status=", 30, len(case.recipients))
        yield found


def _normal(text: str) -> str:
    text = re.sub(r" SIZE=\d+", "", text)  # queue ids are longer
    return re.sub(r"127\.0\.0\.1:\d+|\[127\.0\.0\.1\]:\d+", "SINK", peers.normal(text))


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_what_the_next_host_gets_and_what_is_logged_are_the_same(systems: Systems, name: str) -> None:
    results = []
    for peer in systems.peers:
        queue_id = systems.seen[peer.name, name]
        heard = []
        for sink in (systems.sinks[peer.name], systems.lmtp[peer.name]):
            for session in sink.sessions:
                envelopes: list[list[str]] = []
                for command in session.commands:
                    if command.startswith("MAIL"):
                        envelopes.append([])
                    if command[:4] in ("MAIL", "RCPT"):
                        envelopes[-1].append(command)
                for envelope, content in zip(envelopes, session.contents, strict=False):
                    if re.search(rf"\b{queue_id}\b".encode(), content):
                        heard += [_normal("\n".join(sorted(envelope))), re.sub(r",\s+", ", ", _normal(content.decode("latin-1")))]  # folded differently
        log = []
        for line in peer.log().splitlines():
            found = re.search(rf"postfix(?:-\w+)?/\S+\[\d+\]: ({queue_id}: .*)", line)
            if found and not re.search(r": (?:client|from|message-id)=|: removed$", found[1]):
                log.append(re.sub(r"delay=.*dsn=", "dsn=", _normal(found[1])))
        results.append((heard, sorted(log)))
    assert results[1] == results[0]


def test_the_same_warnings(systems: Systems) -> None:
    found = []
    for peer in systems.peers:
        warnings = {line.partition("warning: ")[2] for line in peer.log().splitlines() if "warning: " in line}
        found.append({_normal(text).replace(peer.name, "PEER") for text in warnings if "_checks" in text or "_maps" in text})
    assert found[1] == found[0]

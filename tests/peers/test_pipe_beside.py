"""pipe(8) beside Debian's Postfix: the same arguments, the same input, the same log lines and reports, flag by flag.

Source: pipe(8), the tutorial's master.cf entries (cyrus, uucp, ifmail, bsmtp, old-cyrus, content filters).
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import peers
from support.ports import free_port

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.xdist_group("peers"),
]

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
relay_domains = static:all
transport_maps = regexp:{etc}/transport
virtual_mailbox_domains = box.test
virtual_mailbox_maps = static:box/
virtual_mailbox_base = {mail}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
recipient_delimiter = +
alias_maps =
alias_database =
disable_dns_lookups = yes
command_time_limit = 2s
maximal_backoff_time = 4000s
"""

SHOW = """\
#!/bin/sh
out=$1; shift
{ for argument; do echo "[$argument]"; done; id -u; id -g; pwd; echo "$PATH"; umask; cat -A; } > "$out/tmp.$$"
mv "$out/tmp.$$" "$out/done.$$"
"""

FAIL = """\
#!/bin/sh
case $1 in
    signal) kill -9 $$;;
    slow) sleep 30;;
    loud) head -c 1500 /dev/zero | tr '\\0' x; exit 69;;
    output) echo "all went well"; echo "second line";;
    *) cat >/dev/null; [ -z "$2" ] || echo "$2"; exit "$1";;
esac
"""

_EVERY = (
    "${sender} $(recipient) $recipient ${user} ${extension} ${mailbox} ${domain} ${nexthop} ${original_recipient} "
    "${client_address} ${client_hostname} ${client_helo} ${client_protocol} ${queue_id} x$$y ${user}-at-${domain} "
    "sasl=${sasl_method}${sasl_username}${sasl_sender} { two words }"
)


@dataclass(frozen=True)
class Case:
    """A pipe service, and a message for it. ``show``: the arguments of the script that shows what it gets."""

    name: str
    attributes: str
    show: str = ""
    fail: str = ""
    recipients: tuple[str, ...] = ("{0}+ext@{0}.test",)
    sender: str = "{0}@box.test"
    content: bytes = b"Subject: s\r\nMessage-Id: <1@x.test>\r\nDate: x\r\nFrom: a@b.test\r\n\r\nbody\r\n"
    nexthop: str = "Next.HOP.test"

    def line(self) -> str:
        program = f"{{top}}/show {{top}}/out/{self.name} {self.show}" if not self.fail else f"{{top}}/fail {self.fail}"
        return f"{self.name} unix - n n - - pipe\n  {self.attributes} argv={program}\n"


DOTS = b"Subject: s\r\nMessage-Id: <1@x.test>\r\nDate: x\r\nFrom: a@b.test\r\n\r\n.\r\n..x\r\nFrom me\r\nFrom: me\r\n>From\r\n"
CASES = [
    Case("plain", "user=nobody", "-f ${sender} -- ${recipient}"),
    Case("every", "user=nobody", _EVERY),
    Case("everyflags", "flags=hqu user=nobody", _EVERY, recipients=("Some.USER+Ext@EveryFlags.test",), sender='"Sen Der"@Box.Test'),
    Case("many", "user=nobody", "-f ${sender} ${recipient} end", recipients=("A@many.test", "b+C@many.test", "d@MANY.test")),
    Case("filter", "flags=Rq user=nobody null_sender=", "-f ${sender} -- ${recipient}", sender=""),
    Case("nullq", "flags=Rq user=nobody", "-f ${sender} -- ${recipient}", sender=""),
    Case("nullname", "flags=RqF user=nobody null_sender=nobody@x", "-f ${sender}", sender=""),
    Case("cyrus", "flags=R user=nobody:daemon", "-e -r ${sender} -m ${extension} ${user}"),
    Case("uucp", "flags=Fqhu user=nobody", "-r -n -z -a$sender - $nexthop!rmail ($recipient)", content=DOTS),
    Case("ifmail", "flags=F user=nobody", "-r $nexthop ($recipient)"),
    Case("bsmtp", "flags=Fq. user=nobody", "-t$nexthop -f$sender $recipient", content=DOTS),
    Case("doru", "flags=DORu user=nobody", "-d ${recipient}", recipients=("Us.er@doru.test",)),
    Case("dorhux", "flags=DORXhu user=nobody", "-d ${user}@${nexthop} ${extension}"),
    Case("mailfrom", "flags=F> user=nobody", "x", content=DOTS),
    Case("blank", "flags=B user=nobody", "x"),
    Case("eol", "user=nobody eol=\\r\\n", "x", content=DOTS),
    Case("eoloctal", "flags=. user=nobody eol=\\041\\n", "x", content=DOTS),
    Case("directory", "user=nobody directory=/tmp", "x"),
    Case("size", "user=nobody size=100", "x"),
    Case("quoting", "flags=q user=nobody", "${sender} ${recipient} ${user}", sender='"a b"@box.test',
         recipients=('"x y"@quoting.test',)),
    Case("quoted", "flags=q user=nobody", "${sender} ${recipient} ${user}", recipients=('"a;b|c"@quoted.test',)),
    Case("unquoted", "user=nobody", "${sender} ${recipient} ${user}", sender='"a b"@box.test',
         recipients=('"x y"@unquoted.test',)),
    Case("loop", "flags=D user=nobody", "x", recipients=("u@loop.test",), content=b"Delivered-To: U@loop.test\r\n" + DOTS),
    Case("eightbit", "user=nobody", "${recipient}", content=DOTS + b"caf\xe9\r\n"),
    *(Case(f"exit{code}", "user=nobody", fail=str(code)) for code in (0, 1, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 99)),
    Case("exitsaid", "user=nobody", fail="69 {5.7.1 no spam today}"),
    Case("exitdefer", "user=nobody", fail="69 {4.7.1 come back later}"),
    Case("exitplain", "user=nobody", fail="65 {plain words}"),
    Case("output", "user=nobody", fail="output"),
    Case("signal", "user=nobody", fail="signal"),
    Case("slow", "user=nobody", fail="slow"),
    Case("loud", "user=nobody", fail="loud"),
    Case("missing", "user=nobody argv=/no/such/program", "x"),
]  # fmt: skip


@dataclass
class Outcome:
    """What came of a message."""

    shown: list[str]
    log: list[str]
    notices: list[str]


def run_all(name: str, top: Path) -> dict[str, Outcome]:
    """All cases in one start."""
    port = free_port()
    transport = "".join(f"/@{case.name}[.]test$/ {case.name}:{case.nexthop}\n" for case in CASES)
    master = f"127.0.0.1:{port} inet n - n - - smtpd\n" + "".join(case.line() for case in CASES)
    peer = peers.Peer(name, top, MAIN_CF, master, files={"transport": transport}, values={"mail": top / "mail"})
    for script, text in (("show", SHOW), ("fail", FAIL)):
        (top / script).write_text(text)
        (top / script).chmod(0o755)
    for case in CASES:
        (top / "out" / case.name).mkdir(parents=True)
        (top / "out" / case.name).chmod(0o777)
    try:
        peer.start()
        for case in CASES:
            talk = peers.Conversation(peers.connect("127.0.0.1", port))
            replies = talk.message(case.sender.format(case.name), [r.format(case.name) for r in case.recipients], case.content)
            assert "queued as" in replies[-2], replies
        peer.wait_log(r"to=<slow\+ext@slow.test>.*status=")
        peers.wait_until(lambda: all(re.search(rf"@{c.name}\.test>.*status=", peer.log(), re.I) for c in CASES), 30, "all")
        peers.wait_until(lambda: settled(peer), 30, "notices")
    finally:
        peer.stop()
    return {case.name: outcome(peer, top, case) for case in CASES}


def settled(peer: peers.Peer) -> bool:
    """Every bounce has been delivered."""
    bounced = len(re.findall("status=bounced", peer.log()))
    return len(list(peer.mail.glob("box/new/*"))) >= len(set(re.findall(r"(\w+): sender non-delivery", peer.log()))) > 0 and bounced > 0


def outcome(peer: peers.Peer, top: Path, case: Case) -> Outcome:
    def clean(text: str) -> str:
        text = re.sub(r"\w{3}, \d+ \w{3} \d{4} [\d:]{8} [+-]\d{4} \(\w+\)", "DATE", text)
        return peers.normal(re.sub(r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}", "CTIME", text)).replace(str(top), "TOP")

    shown = sorted(clean(path.read_text("latin-1")) for path in (top / "out" / case.name).glob("done.*"))
    log = []
    for line in peer.log().splitlines():
        if re.search(rf"@{case.name}\.test>.*status=", line, re.I) and "/pipe[" in line:
            log.append(clean(re.sub(r"delays?=[^,]+, ", "", line.partition("to=")[2])))
    notices = []
    for path in peer.mail.glob("box/new/*"):
        text = path.read_text("latin-1")
        if re.search(rf"^Final-Recipient: .*@{case.name}\.test$", text, re.M | re.I):
            fields = re.findall(r"^(?:Final-Recipient|Original-Recipient|Action|Status|Diagnostic-Code):.*(?:\n .*)*", text, re.M)
            notices.append(clean("\n".join(fields)))
    return Outcome(shown, sorted(log), sorted(notices))


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, dict[str, Outcome]]]:
    """System -> case -> outcome."""
    base = Path(tempfile.mkdtemp(prefix="pipe-"))
    base.chmod(0o755)
    try:
        yield {name: run_all(name, base / name) for name in peers.NAMES}
    finally:
        shutil.rmtree(base, ignore_errors=True)


DIFFERS: dict[str, str] = {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_pipe(results: dict[str, dict[str, Outcome]], case: Case) -> None:
    """The same command lines, input, log and reports."""
    ours, reference = results["estafeta"][case.name], results["postfix"][case.name]
    assert reference.log, "nothing was delivered"
    if case.name in DIFFERS:
        assert ours != reference, "no longer different: take it out of DIFFERS and docs/differs.md"
        pytest.xfail(DIFFERS[case.name])
    assert ours.shown == reference.shown
    assert ours.log == reference.log
    assert ours.notices == reference.notices


if __name__ == "__main__":
    import pprint

    pprint.pprint(run_all(sys.argv[1], Path(tempfile.mkdtemp(prefix="pipe-"))), width=180)

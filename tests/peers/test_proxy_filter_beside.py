"""The before-queue filter (smtpd_proxy_filter) beside Debian's Postfix: replies, log, and what the filter hears.

Source: SMTPD_PROXY_README. The filter is tests/support/scripted_proxy.py, which deviates as the sender's address says.
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
from support.scripted_proxy import ScriptedProxy

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
local_recipient_maps =
local_transport = discard
default_transport = discard
alias_maps =
alias_database =
disable_dns_lookups = yes
smtpd_authorized_xforward_hosts = 127.0.0.2
smtpd_recipient_restrictions = check_recipient_access inline:{ { refused@here.test = REJECT no }, { held@here.test = HOLD held },
  { pre@here.test = PREPEND X-Pre: x } }
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 100
smtpd_hard_error_limit = 100
message_size_limit = 400000
notify_classes =
in_flow_delay = 0
smtpd_proxy_timeout = 2s
"""

# listener -> options; {x} are the ports of proxies
LISTENERS = {
    "usual": "-o smtpd_proxy_filter=127.0.0.1:{proxy}",
    "speed": "-o smtpd_proxy_filter=inet:localhost:{proxy} -o smtpd_proxy_options=speed_adjust -o smtpd_proxy_ehlo=me.test",
    "early": "-o smtpd_proxy_filter={proxy} -o smtpd_delay_open_until_valid_rcpt=no",
    "nobody": "-o smtpd_proxy_filter=127.0.0.1:{nobody}",
    "greets5": "-o smtpd_proxy_filter=127.0.0.1:{greets5}",
    "silent": "-o smtpd_proxy_filter=127.0.0.1:{silent}",
    "noehlo": "-o smtpd_proxy_filter=127.0.0.1:{noehlo}",
    "noxforward": "-o smtpd_proxy_filter=127.0.0.1:{noxforward}",
    "badxforward": "-o smtpd_proxy_filter=127.0.0.1:{badxforward}",
    "speednobody": "-o smtpd_proxy_filter=127.0.0.1:{nobody} -o smtpd_proxy_options=speed_adjust",
}
EHLO = "EHLO client.test"
CONTENT = ["> Subject: {0}", "> To: x", "> ", "> body", "> ..dotted", "."]


def message(sender: str, *recipients: str) -> list[str]:
    return [f"MAIL FROM:<{sender}@here.test>", *(f"RCPT TO:<{x}@here.test>" for x in recipients or ("b",)), "DATA", *CONTENT]


def refused(sender: str, *recipients: str) -> list[str]:
    """The same up to the DATA that will not be taken."""
    return message(sender, *recipients)[:-len(CONTENT)]


SCRIPTS: dict[str, tuple[str, str, list[str]]] = {
    "plain": ("127.0.0.1", "usual", [EHLO, *message("a"), *message("a2", "b", "c"), "QUIT"]),
    "helo": ("127.0.0.1", "usual", ["HELO client.test", *message("a"), "QUIT"]),
    "params": ("127.0.0.1", "usual", [EHLO, "mail from: <a@here.test> SIZE=100 body=8bitmime RET=HDRS ENVID=x",
               "rcpt  to:<b@here.test>  NOTIFY=SUCCESS ORCPT=rfc822;q@x", "DATA", *CONTENT, "QUIT"]),
    "actions": ("127.0.0.1", "usual", [EHLO, *message("a", "refused", "b"), *refused("a", "refused"), "RSET", *message("a", "pre"),
                *message("a", "held"), "QUIT"]),
    "resets": ("127.0.0.1", "usual", [EHLO, "MAIL FROM:<a@here.test>", "RSET", "MAIL FROM:<a@here.test>", "RCPT TO:<b@here.test>",
               "RSET", "MAIL FROM:<a@here.test>", "RCPT TO:<b@here.test>", "EHLO again.test", *message("a"), "QUIT"]),
    "quit": ("127.0.0.1", "usual", [EHLO, "MAIL FROM:<a@here.test>", "RCPT TO:<b@here.test>", "QUIT"]),
    "xforward": ("127.0.0.2", "usual", [EHLO, "XFORWARD NAME=f.test ADDR=192.0.2.1 IDENT=ORIG PROTO=SMTP HELO=h.test PORT=77 SOURCE=LOCAL",
                 *message("a"), "XFORWARD IDENT=ONLY", *message("a"), "QUIT"]),
    "empty": ("127.0.0.1", "usual", [EHLO, "MAIL FROM:<a@here.test>", "RCPT TO:<b@here.test>", "DATA", ".", "QUIT"]),
    "bdat": ("127.0.0.1", "usual", [EHLO, "MAIL FROM:<a@here.test>", "RCPT TO:<b@here.test>", "> BDAT 14", "Subject: bda",
             "> BDAT 3 LAST", "t", "NOOP", "QUIT"]),
    "toobig": ("127.0.0.1", "usual", [EHLO, *message("a")[:-2], *["> " + "x" * 990] * 420, ".", "NOOP", "QUIT"]),
    "large": ("127.0.0.1", "usual", [EHLO, *message("a")[:-2], *["> " + "x" * 990] * 380, ".", "NOOP", "QUIT"]),
    "order": ("127.0.0.1", "usual", [EHLO, *message("rcpt2", "b", "c"), "MAIL FROM:<bad", *message("a"), "QUIT"]),
    **{word: ("127.0.0.1", "usual", [EHLO, *message(word), *message("a"), "QUIT"]) for word in (
        "dot5", "dot4", "dotlines", "dotnodsn", "dot354", "dotgarbage", "dotclose", "dotsilent", "dot421", "rcpt251", "dotlong")},
    **{word: ("127.0.0.1", "usual", [EHLO, *refused(word), "RSET", *message("a"), "QUIT"]) for word in (
        "mail5", "mail4", "rcpt5", "data5", "data250", "mailclose", "rcptclose", "dataclose", "rcptsilent", "rcpt421")},
    "early": ("127.0.0.1", "early", [EHLO, *message("a"), "MAIL FROM:<mail5@here.test>", "MAIL FROM:<mailclose@here.test>",
              *message("a"), "MAIL FROM:<a@here.test>", "RSET", "QUIT"]),
    "nobody": ("127.0.0.1", "nobody", [EHLO, *refused("a"), "RSET", *refused("a"), "QUIT"]),
    "greets5": ("127.0.0.1", "greets5", [EHLO, *refused("a"), "QUIT"]),
    "silent": ("127.0.0.1", "silent", [EHLO, *refused("a"), "QUIT"]),
    "noehlo": ("127.0.0.1", "noehlo", [EHLO, *message("a"), "QUIT"]),
    "noxforward": ("127.0.0.1", "noxforward", [EHLO, *message("a"), "QUIT"]),
    "badxforward": ("127.0.0.1", "badxforward", [EHLO, *message("a"), "QUIT"]),
    "speed": ("127.0.0.1", "speed", [EHLO, *message("a", "b", "c"), "MAIL FROM:<a@here.test>", "RCPT TO:<b@here.test>", "RSET", "QUIT"]),
    **{f"speed-{word}": ("127.0.0.1", "speed", [EHLO, *message(word, "b", "c"), *message("a"), "QUIT"]) for word in (
        "mail5", "rcpt5", "rcpt2", "data5", "dot5", "dotclose", "dotsilent", "mailclose", "rcpt421")},
    "speednobody": ("127.0.0.1", "speednobody", [EHLO, *message("a"), "QUIT"]),
    "speedbig": ("127.0.0.1", "speed", [EHLO, *message("a")[:-2], *["> " + "x" * 990] * 420, ".", "NOOP", "QUIT"]),
    "speedlarge": ("127.0.0.1", "speed", [EHLO, *message("a")[:-2], *["> " + "x" * 990] * 380, ".", "NOOP", "QUIT"]),
    "speedbdat": ("127.0.0.1", "speed", [EHLO, "MAIL FROM:<a@here.test>", "RCPT TO:<b@here.test>", "> BDAT 14", "Subject: bda",
             "> BDAT 3 LAST", "t", "NOOP", "QUIT"]),
}  # fmt: skip


# What differs on purpose, and the words of ours.
DIFFERS = {
    "dot354": "a 3xx to the end of the content would leave the client waiting: it is told 451",
    "toobig": "Postfix logs the filter's last reply (to DATA), and its QUIT is taken for content",
    "speedbig": "Postfix logs an empty reply",
}


class System:
    """One of the two, with what came of every script."""

    def __init__(self, name: str) -> None:
        self.top = Path(tempfile.mkdtemp(prefix=f"proxyfilter-{name}-"))
        ports = free_ports(len(LISTENERS) + 1)
        self.ports = dict(zip(LISTENERS, ports[1:], strict=True))
        self.proxies = {
            "proxy": ScriptedProxy(),
            "greets5": ScriptedProxy(greeting="554 not today"),
            "silent": ScriptedProxy(greeting="SILENT"),
            "noehlo": ScriptedProxy(ehlo="502 no EHLO here"),
            "noxforward": ScriptedProxy(ehlo="250-proxy.test\r\n250 8BITMIME"),
            "badxforward": ScriptedProxy(xforward="550 not you"),
        }
        values = {"nobody": ports[0], **{key: proxy.port for key, proxy in self.proxies.items()}}
        master_cf = "".join(f"127.0.0.1:{self.ports[key]} inet n - n - - smtpd {text}\n" for key, text in LISTENERS.items())
        self.peer = peers.Peer(name, self.top, MAIN_CF, master_cf, values=values)
        self.values = values
        self.replies: dict[str, list[str]] = {}
        self.logs: dict[str, str] = {}
        self.heard: dict[str, list[list[str]]] = {}
        self.mail: dict[str, list[str]] = {}

    def run(self) -> None:
        self.peer.start()
        for name in SCRIPTS:
            before = len(self.peer.log())
            self.replies[name] = self._script(name)
            self.peer.wait_log(r"disconnect from", count=len(self.replies))
            self.logs[name] = self.peer.log()[before:]
            proxy = self.proxies.get(SCRIPTS[name][1], self.proxies["proxy"])
            self.heard[name] = proxy.take()
            self.mail[name] = ["\n".join(x) + "\n" for x in self.heard[name]]

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

    def shown(self, text: str) -> str:
        """What does not depend on ports, process numbers or the clock."""
        for name, port in self.values.items():
            text = re.sub(rf"\b{port}\b", name, text)
        return re.sub(r"(PORT=)\d{5}\b", r"\1CLIENTPORT", peers.normal(text))

    def log_of(self, name: str) -> list[str]:
        """smtpd's lines of one script, without dates and numbers."""
        lines = []
        for line in self.logs[name].splitlines():
            match = re.search(r" postfix[^/ ]*/(?:\S*/)?(smtpd)\[\d+\]: (.*)", line)
            if match:
                lines.append(self.shown(match[2])[:1500])  # Postfix cuts long lines
        return lines

    def close(self) -> None:
        self.peer.stop()
        for proxy in self.proxies.values():
            proxy.close()
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
    if name in DIFFERS:
        pytest.skip(DIFFERS[name])
    assert [ours.shown(x) for x in ours.replies[name]] == [theirs.shown(x) for x in theirs.replies[name]]


@pytest.mark.parametrize("name", SCRIPTS)
def test_log(systems: tuple[System, System], name: str) -> None:
    theirs, ours = systems
    if name in DIFFERS:
        pytest.skip(DIFFERS[name])
    assert ours.log_of(name) == theirs.log_of(name)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_the_filter_hears(systems: tuple[System, System], name: str) -> None:
    theirs, ours = systems
    if name in DIFFERS:
        pytest.skip(DIFFERS[name])
    assert [[ours.shown(x) for x in talk] for talk in ours.heard[name]] == [[theirs.shown(x) for x in talk] for talk in theirs.heard[name]]


def test_ours_where_it_differs(systems: tuple[System, System]) -> None:
    ours = systems[1]
    error = "451 4.3.0 Error: queue file write error\r\n"
    assert ours.replies["dot354"][5] == f". -> {error}"
    too_big = "552 5.3.4 Error: message file too big"
    for name in ("toobig", "speedbig"):
        assert [x for x in ours.replies[name] if x.startswith(". ->")] == [f". -> {too_big}\r\n"]
        assert any(x.startswith(f"proxy-reject: END-OF-MESSAGE: {too_big}; from=<a@here.test>") for x in ours.log_of(name))
    assert ours.heard["toobig"][0][-1] == "EOF"
    assert ours.heard["speedbig"] == []

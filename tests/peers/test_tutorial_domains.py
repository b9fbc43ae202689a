"""The tutorial's chapter 3: a second domain in both styles, and its move to a host of its own while mail flows.

The configuration is as printed there (shared/postfix-tutorial.es.txt, chapter 3; addresses and directories are the test's). The
same scenario runs on Debian's Postfix and on Estafeta, in network namespaces with a DNS of their own.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import netns, peers

_MISSING = peers.missing() or netns.missing()

pytestmark = [
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""),
    pytest.mark.xdist_group("peers"),
    pytest.mark.timeout(180),
]

HOSTS = {
    "world": ["203.0.113.9/24"],
    "relay": ["192.168.1.1/16", "203.0.113.1/24"],
    "smtp": ["192.168.1.2/16"],
    "fund": ["192.168.1.9/16"],
}
DNS = ["192.168.0.53/16", "203.0.113.53/24"]
NAMES = {
    "mx.world.test": "203.0.113.9",
    "relay.univ.es": "192.168.1.1",
    "smtp.univ.es": "192.168.1.2",
    "smtp.fund-univ.es": "192.168.1.9",
}
ZONES: dict[str, object] = {
    **{name: {"A": [address]} for name, address in NAMES.items()},
    **{".".join(reversed(address.split("."))) + ".in-addr.arpa": {"PTR": [name]} for name, address in NAMES.items()},
    "world.test": {"MX": ["10 mx.world.test"]},
    "pastorro.test": {"MX": ["10 mx.world.test"]},
    "univ.es": {"MX": ["10 relay.univ.es"]},
    "fund-univ.es": {"MX": ["10 relay.univ.es"]},
}

COMMON_CF = """\
mydomain = univ.es
mail_spool_directory = {top}/mail
alias_maps = hash:{etc}/aliases
alias_database = hash:{etc}/aliases
local_recipient_maps = $alias_maps unix:passwd.byname
transport_maps = hash:{etc}/transport
mynetworks = 127.0.0.1 192.168.0.0/16
smtpd_recipient_restrictions = permit_mynetworks check_relay_domains
"""

RELAY_CF = """\
myhostname = relay.univ.es
# CONTROL DE CORREO ENTRANTE / SALIENTE
mydestination = $myhostname localhost.$mydomain
relay_domains = $mydestination $mydomain fund-univ.es
"""

RELAY_TRANSPORT = """\
# TRAFICO LOCAL ...
relay.univ.es      local:
localhost.univ.es local:

# TRAFICO INTERNO ...
univ.es           smtp:[smtp.univ.es]
fund-univ.es      smtp:[smtp.univ.es]
depart1.univ.es   smtp:[smtp.depart1.univ.es]
.depart1.univ.es  smtp:[smtp.depart1.univ.es]
"""
MOVED_TRANSPORT = RELAY_TRANSPORT.replace("fund-univ.es      smtp:[smtp.univ.es]", "fund-univ.es      smtp:[smtp.fund-univ.es]")

SMTP_CF = """\
myhostname = smtp.univ.es
relay = relay.univ.es
myorigin = $mydomain
disable_dns_lookups = yes
relayhost = [$relay]
"""
# sendmail-style: one set of users for both domains
SENDMAIL_STYLE_CF = """\
# CONTROL DE CORREO ENTRANTE / SALIENTE
mydestination = $myhostname localhost.$mydomain $mydomain fund-univ.es
relay_domains = $mydestination
"""
SENDMAIL_STYLE_TRANSPORT = """\
# TRAFICO LOCAL ...
univ.es          local:
smtp.univ.es     local:
localhost.univ.es local:
fund-univ.es     local:

# TRAFICO INTERNO ...
.univ.es        smtp:
"""
# postfix-style: the domain has addresses of its own
POSTFIX_STYLE_CF = """\
# CONTROL DE CORREO ENTRANTE / SALIENTE
mydestination = $myhostname localhost.$mydomain $mydomain
relay_domains = $mydestination
virtual_maps = hash:{etc}/virtual
"""
POSTFIX_STYLE_TRANSPORT = """\
# TRAFICO LOCAL ...
univ.es          local:
smtp.univ.es     local:
localhost.univ.es local:

# TRAFICO INTERNO ...
.univ.es        smtp:
"""
VIRTUAL_DOMAIN = "fund-univ.es          virtual\n"
VIRTUAL = """\
gerente@fund-univ.es  games
gestion@fund-univ.es  mail, news
tesorero@fund-univ.es jheras@pastorro.test
games@fund-univ.es    games
"""

USERS = ("games", "mail", "gerente", "gestion", "tesorero", "nadie-asi", "gerente+ext")
STYLES = ("sendmail", "postfix", "postfix without domain")


@dataclass
class Outcome:
    """What one system did."""

    replies: dict[str, list[str]] = field(default_factory=dict)
    statuses: dict[str, list[str]] = field(default_factory=dict)
    boxes: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    arrived: dict[str, list[str]] = field(default_factory=dict)


class Scenario:
    """One system's two hosts; the world and the new host are sinks."""

    def __init__(self, net: netns.Network, name: str, base: Path) -> None:
        self.net = net
        self.outcome = Outcome()
        master = "smtp inet n - n - - smtpd\n"
        self.relay = peers.Peer(
            name, base / f"{name}-relay", COMMON_CF + RELAY_CF, master, level="", prefix=net.prefix("relay"),
            files={"aliases": "root: games\n", "transport": RELAY_TRANSPORT, "virtual": ""},
        )  # fmt: skip
        self.smtp = peers.Peer(
            name, base / f"{name}-smtp", COMMON_CF + SMTP_CF, master, level="", prefix=net.prefix("smtp"),
            files={"aliases": "root: games\n", "transport": SENDMAIL_STYLE_TRANSPORT, "virtual": ""},
        )  # fmt: skip
        self.base_cf = (self.smtp.etc / "main.cf").read_text()
        for host in (self.relay, self.smtp):
            host.mail.chmod(0o1777)
            self.tables(host, "transport", "virtual")
            made = host.command("postalias", f"hash:{host.etc}/aliases")
            assert made.returncode == 0, made.stderr

    @staticmethod
    def tables(host: peers.Peer, *names: str) -> None:
        """postmap."""
        for name in names:
            made = host.command("postmap", f"hash:{host.etc}/{name}")
            assert made.returncode == 0, made.stderr

    def style(self, style: str) -> None:
        """Give the second-level host another configuration, and reload it."""
        sendmail = style == "sendmail"
        more = SENDMAIL_STYLE_CF if sendmail else POSTFIX_STYLE_CF
        self.smtp.write("main.cf", self.base_cf + more.replace("{etc}", str(self.smtp.etc)))
        self.smtp.write("transport", SENDMAIL_STYLE_TRANSPORT if sendmail else POSTFIX_STYLE_TRANSPORT)
        self.smtp.write("virtual", {"sendmail": "", "postfix": VIRTUAL_DOMAIN + VIRTUAL}.get(style, VIRTUAL))
        self.tables(self.smtp, "transport", "virtual")
        if self.smtp.processes():
            done = self.smtp.command("postfix", "reload")
            assert done.returncode == 0, done.stderr
            self.smtp.wait_log(r"reload", 10)
            time.sleep(1)  # Postfix's old processes go away in their own time

    def play(self) -> None:
        world = netns.Sink(self.net.listen("world", "203.0.113.9"), "mx.world.test")
        fund = netns.Sink(self.net.listen("fund", "192.168.1.9"), "smtp.fund-univ.es")
        try:
            self.style("sendmail")
            self.relay.start()
            self.smtp.start()
            for number, style in enumerate(STYLES):
                if number:
                    self.style(style)
                self.one_style(style, world)
            self.style("sendmail")
            self.move()
        finally:
            for host in (self.smtp, self.relay):
                host.stop()
            world.close()
            fund.close()
        marks = re.compile(r"Subject: (move \d+)")
        here = [m for box in self.smtp.mail.iterdir() for m in marks.findall(box.read_text("latin-1"))]
        there = [m for delivery in fund.deliveries for m in marks.findall(delivery.content.decode("latin-1"))]
        self.outcome.arrived = {"here": here, "there": there}

    def one_style(self, style: str, world: netns.Sink) -> None:
        """Mail from the world to each address of the domain."""
        logged = {id(host): len(host.log()) for host in (self.relay, self.smtp)}
        for box in self.smtp.mail.iterdir():
            box.unlink()
        seen = len(world.deliveries)
        for user in USERS:
            content = f"From: ana@world.test\r\nTo: {user}@fund-univ.es\r\nSubject: {style} {user}\r\n\r\nx\r\n".encode()
            talk = peers.Conversation(self.net.connect("smtp", "192.168.1.2"))  # straight, to see its own replies
            direct = talk.message("ana@world.test", [f"{user}@fund-univ.es"], content, "cliente.test")
            talk = peers.Conversation(self.net.connect("world", "203.0.113.1"))
            replies = talk.message("ana@world.test", [f"{user}@fund-univ.es"], content, "cliente.test")
            self.outcome.replies[f"{style}: {user}"] = [peers.normal(reply) for reply in (*direct, *replies)]
        # Messages may go to and fro between the two until their hop count ends it.
        def both_empty() -> bool:
            hosts = (self.relay, self.smtp, self.relay, self.smtp)
            return all(b"Mail queue is empty" in host.command("postqueue", "-p").stdout for host in hosts)

        peers.wait_until(both_empty, 60, "both queues empty")
        lines = [line for host in (self.relay, self.smtp) for line in host.log()[logged[id(host)] :].splitlines()]
        self.outcome.statuses[style] = sorted(
            re.sub(r" conn_use=\d+,", "", peers.normal(re.sub(r" delays?=[\d./]+,", "", line.partition("]: ")[2])))
            for line in lines
            if " status=" in line
        )
        boxes: dict[str, list[str]] = {}
        for box in self.smtp.mail.iterdir():
            boxes[box.name] = sorted(re.findall(r"(?m)^Subject: .*", box.read_text("latin-1")))
        boxes["world"] = sorted(
            m for delivery in world.deliveries[seen:] for m in re.findall(r"(?m)^Subject: [^\r\n]*", delivery.content.decode("latin-1"))
        )
        self.outcome.boxes[style] = boxes

    def move(self) -> None:
        """One transport line changes on the relay while mail keeps coming."""
        stop = threading.Event()
        sent: list[str] = []

        def flow() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                content = f"From: ana@world.test\r\nTo: games@fund-univ.es\r\nSubject: move {number}\r\n\r\nx\r\n".encode()
                talk = peers.Conversation(self.net.connect("world", "203.0.113.1"))
                replies = talk.message("ana@world.test", ["games@fund-univ.es"], content, "cliente.test")
                if replies[-2].startswith("250 2.0.0 Ok: queued"):
                    sent.append(f"move {number}")

        thread = threading.Thread(target=flow)
        thread.start()
        try:
            time.sleep(1)
            self.relay.write("transport", MOVED_TRANSPORT)
            self.tables(self.relay, "transport")
            assert self.relay.command("postfix", "reload").returncode == 0
            time.sleep(2)
        finally:
            stop.set()
            thread.join()
        for host in (self.relay, self.smtp):
            host.flush_and_wait(40)
        self.outcome.sent = sent


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Outcome]]:
    """The scenario on both systems."""
    base = Path(tempfile.mkdtemp(prefix="domains-"))
    base.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        net = stack.enter_context(netns.network(HOSTS, ZONES, DNS))
        found = {}
        for name in peers.NAMES:
            scenario = Scenario(net, name, base)
            scenario.play()
            found[name] = scenario.outcome
        yield found


@pytest.mark.parametrize("style", STYLES)
def test_styles(outcomes: dict[str, Outcome], style: str) -> None:
    """The same replies, deliveries and log in each style."""
    ours, reference = outcomes["estafeta"], outcomes["postfix"]
    for title, replies in reference.replies.items():
        if title.startswith(style + ": "):
            assert ours.replies[title] == replies, title
    assert ours.boxes[style] == reference.boxes[style]
    assert ours.statuses[style] == reference.statuses[style]


def test_what_the_tutorial_says(outcomes: dict[str, Outcome]) -> None:
    """Both domains share users; virtual users lead to others, here and elsewhere."""
    for outcome in outcomes.values():
        assert "Subject: sendmail games" in outcome.boxes["sendmail"]["games"]
        assert "Subject: postfix gerente" in outcome.boxes["postfix"]["games"]
        assert "Subject: postfix gestion" in outcome.boxes["postfix"]["mail"]
        assert "Subject: postfix tesorero" in outcome.boxes["postfix"]["world"]


def test_move_loses_nothing(outcomes: dict[str, Outcome]) -> None:
    """Every message that was acknowledged during the move is in one place, once; the new host has got some."""
    for name, outcome in outcomes.items():
        arrived = outcome.arrived["here"] + outcome.arrived["there"]
        assert sorted(arrived) == sorted(outcome.sent), name
        assert outcome.arrived["here"] and outcome.arrived["there"], name
        assert len(outcome.sent) > 20, name

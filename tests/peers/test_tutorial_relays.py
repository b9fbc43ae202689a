"""The tutorial's chapter 2: a first-level relay and a second-level host between the world, an intranet and mailboxes.

The configuration is as printed there (shared/postfix-tutorial.es.txt, 2.1 and 2.2; addresses and directories are the test's).
The same scenario runs on Debian's Postfix and on Estafeta, in network namespaces with a DNS of their own; replies and
deliveries have to be the same.
"""

from __future__ import annotations

import re
import shutil
import tempfile
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
    "world": ["203.0.113.9/24", "203.0.113.77/24"],
    "relay": ["192.168.1.1/16", "203.0.113.1/24"],
    "smtp": ["192.168.1.2/16"],
    "depart1": ["192.168.1.3/16"],
    "desk": ["192.168.7.7/16"],
}
DNS = ["192.168.0.53/16", "203.0.113.53/24"]


def _reverse(address: str) -> str:
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"


NAMES = {
    "mx.world.test": "203.0.113.9",
    "casa.univ.es": "203.0.113.77",
    "relay.univ.es": "192.168.1.1",
    "smtp.univ.es": "192.168.1.2",
    "smtp.depart1.univ.es": "192.168.1.3",
    "pc.univ.es": "192.168.7.7",
}
ZONES: dict[str, object] = {
    **{name: {"A": [address]} for name, address in NAMES.items()},
    **{_reverse(address): {"PTR": [name]} for name, address in NAMES.items()},
    "world.test": {"MX": ["10 mx.world.test"]},
    "univ.es": {"MX": ["10 relay.univ.es"]},
    "depart1.univ.es": {"A": ["192.168.1.3"], "MX": ["10 relay.univ.es"]},
    "sub.depart1.univ.es": {"A": ["192.168.1.3"], "MX": ["10 relay.univ.es"]},
}

# Of chapter 1.2: what every host has.
COMMON_CF = """\
mail_spool_directory = {top}/mail
alias_maps = hash:{etc}/aliases
alias_database = hash:{etc}/aliases
local_recipient_maps = $alias_maps unix:passwd.byname
"""

RELAY_CF = """\
# NOMBRE, DOMINIO y SMARHOST
myhostname = relay.univ.es
mydomain = univ.es
#relay =
# OTROS PARAMETROS DE CONFIGURACION
transport_maps = hash:{etc}/transport
disable_dns_lookups = no
#relayhost = [$relay]
# CONTROL DE CORREO ENTRANTE / SALIENTE
mynetworks = 127.0.0.1 192.168.0.0/16
mydestination = $myhostname localhost.$mydomain
relay_domains = $mydestination $mydomain
smtpd_recipient_restrictions = permit_mynetworks check_relay_domains
"""

RELAY_TRANSPORT = """\
# TRAFICO LOCAL ...
relay.univ.es      local:
localhost.univ.es local:

# TRAFICO INTERNO ...
univ.es           smtp:[smtp.univ.es]
depart1.univ.es   smtp:[smtp.depart1.univ.es]
.depart1.univ.es  smtp:[smtp.depart1.univ.es]
depart2.univ.es   smtp:[smtp.depart2.univ.es]
.depart2.univ.es  smtp:[smtp.depart2.univ.es]
"""

SMTP_CF = """\
# NOMBRE, DOMINIO y SMARHOST
myhostname = smtp.univ.es
mydomain = univ.es
relay = relay.univ.es
# DIRECCION QUE APARECE EN ENVIO DE CORREO
myorigin = $mydomain
# OTROS PARAMETROS DE CONFIGURACION
transport_maps = hash:{etc}/transport
disable_dns_lookups = yes
relayhost = [$relay]
# CONTROL DE CORREO ENTRANTE / SALIENTE
mynetworks = 127.0.0.1 192.168.0.0/16
mydestination = $myhostname localhost.$mydomain $mydomain
relay_domains = $mydestination
smtpd_recipient_restrictions = permit_mynetworks check_relay_domains
"""

SMTP_TRANSPORT = """\
# TRAFICO LOCAL ...
univ.es          local:
smtp.univ.es    local:
localhost.univ.es local:

# TRAFICO INTERNO ...
.univ.es        smtp:
"""

ALIASES = """\
root: games
postmaster: root
abuse: root
equipo: games, mail
"""


@dataclass
class Outcome:
    """What one system did in the scenario."""

    replies: dict[str, list[str]] = field(default_factory=dict)
    sinks: dict[str, list[tuple[str, list[str], str]]] = field(default_factory=dict)
    boxes: dict[str, str] = field(default_factory=dict)
    rejects: dict[str, list[str]] = field(default_factory=dict)
    statuses: dict[str, list[str]] = field(default_factory=dict)
    queued: list[str] = field(default_factory=list)


def text(subject: str, sender: str, to: str) -> bytes:
    """A plain message."""
    return f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n{subject}\r\n.dot\r\n".encode()


class Scenario:
    """One system's two hosts in the network."""

    def __init__(self, net: netns.Network, name: str, base: Path) -> None:
        self.net = net
        self.outcome = Outcome()
        master = "smtp inet n - n - - smtpd\n"
        files = {"aliases": ALIASES}
        self.relay = peers.Peer(
            name, base / f"{name}-relay", COMMON_CF + RELAY_CF, master, level="", prefix=net.prefix("relay"),
            files={**files, "transport": RELAY_TRANSPORT},
        )  # fmt: skip
        self.smtp = peers.Peer(
            name, base / f"{name}-smtp", COMMON_CF + SMTP_CF, master, level="", prefix=net.prefix("smtp"),
            files={**files, "transport": SMTP_TRANSPORT},
        )  # fmt: skip
        for host in (self.relay, self.smtp):
            host.mail.chmod(0o1777)
            for program, table in (("postmap", "transport"), ("postalias", "aliases")):
                made = host.command(program, "-c", str(host.etc), f"hash:{host.etc}/{table}")
                assert made.returncode == 0, made.stderr

    def talk(self, title: str, host: str, to: str, sender: str, recipients: list[str], source: str = "") -> None:
        """One conversation with one message; its replies are kept."""
        link = self.net.connect(host, to, source=source)
        content = text(title, sender or "nadie@world.test", recipients[0])
        replies = peers.Conversation(link).message(sender, recipients, content, "cliente.test")
        self.outcome.replies[title] = [peers.normal(reply) for reply in replies]

    def play(self) -> None:
        """All of it."""
        world, depart1 = (
            netns.Sink(self.net.listen("world", "203.0.113.9"), "mx.world.test"),
            netns.Sink(self.net.listen("depart1", "192.168.1.3"), "smtp.depart1.univ.es"),
        )
        try:
            self.relay.start()
            self.smtp.start()
            self._conversations()
            self.relay.flush_and_wait()
            self.smtp.flush_and_wait()
            self.relay.flush_and_wait()
            self._relay_down()
            self.relay.wait_log("aplazado@world.test>.*status=sent", 20)
            self.relay.flush_and_wait()
        finally:
            for host in (self.smtp, self.relay):
                host.stop()
            world.close()
            depart1.close()
        self._gather(world, depart1)

    def _conversations(self) -> None:
        relay, smtp = "203.0.113.1", "192.168.1.2"
        talk = self.talk
        talk("outside to user", "world", relay, "ana@world.test", ["games@univ.es"])
        talk("outside to alias", "world", relay, "ana@world.test", ["equipo@univ.es"])
        talk("outside to department", "world", relay, "ana@world.test", ["luis@depart1.univ.es"])
        talk("outside to sub", "world", relay, "ana@world.test", ["luis@sub.depart1.univ.es"])
        talk("outside to both", "world", relay, "ana@world.test", ["games@univ.es", "luis@depart1.univ.es", "mail@univ.es"])
        talk("outside to third", "world", relay, "ana@world.test", ["eva@lejos.test"])
        talk("outside mixed", "world", relay, "ana@world.test", ["eva@lejos.test", "mail@univ.es"])
        talk("outside percent", "world", relay, "ana@world.test", ["eva%lejos.test@univ.es", "lejos.test!eva@univ.es"])
        talk("outside route", "world", relay, "ana@world.test", ["@univ.es:eva@lejos.test"])
        talk("outside to root", "world", relay, "ana@world.test", ["root@relay.univ.es"])
        talk("outside to postmaster", "world", relay, "ana@world.test", ["postmaster"])
        talk("outside to unknown here", "world", relay, "ana@world.test", ["nadie-asi@relay.univ.es"])
        talk("outside bounce to user", "world", relay, "", ["games@univ.es"])
        talk("home, named in relay_domains", "world", relay, "eva@univ.es", ["amiga@world.test"], source="203.0.113.77")
        talk("unknown user over the relay", "world", relay, "ana@world.test", ["nadie-asi@univ.es"])
        talk("desk to outside", "desk", smtp, "games@univ.es", ["amigo@world.test"])
        talk("desk to department", "desk", smtp, "games@univ.es", ["luis@depart1.univ.es"])
        talk("desk to mixed", "desk", smtp, "games@univ.es", ["luis@depart1.univ.es", "amigo@world.test", "mail@univ.es"])
        talk("desk short names", "desk", smtp, "games", ["mail", "amigo@world.test"])
        talk("desk unknown", "desk", smtp, "games@univ.es", ["nadie-asi@univ.es"])
        talk("desk to postmaster", "desk", smtp, "games@univ.es", ["postmaster@univ.es"])
        talk("desk over relay", "desk", "192.168.1.1", "games@univ.es", ["amigo@world.test", "root@relay.univ.es"])
        content = b"To: amigo@world.test, mail\nSubject: sendmail\n\nx\n"
        sent = self.smtp.command("sendmail", "-f", "games", "-t", input_bytes=content)
        self.outcome.replies["sendmail"] = [str(sent.returncode), sent.stderr.decode()]

    def _relay_down(self) -> None:
        self.relay.stop()
        self.talk("relay down", "desk", "192.168.1.2", "games@univ.es", ["aplazado@world.test"])
        self.smtp.wait_log("aplazado@world.test.*status=deferred", 20)
        self.outcome.queued = re.findall(r"(?m)^ +(\S+@\S+)$", self.smtp.command("postqueue", "-p").stdout.decode())
        self.relay.start()
        flushed = self.smtp.command("postqueue", "-f")
        assert flushed.returncode == 0, flushed.stderr
        self.smtp.wait_log("aplazado@world.test.*status=sent", 20)

    def _gather(self, *sinks: netns.Sink) -> None:
        outcome = self.outcome
        for title, sink in zip(("world", "depart1"), sinks, strict=True):
            outcome.sinks[title] = sorted(
                (d.helo, [_envelope(line) for line in d.envelope], _content(d.content)) for d in sink.deliveries
            )
        for host_name, host in (("relay", self.relay), ("smtp", self.smtp)):
            for box in sorted(host.mail.iterdir()):
                outcome.boxes[f"{host_name}/{box.name}"] = _mbox(box.read_bytes())
            lines = [line.partition("]: ")[2] for line in host.log().splitlines()]
            outcome.rejects[host_name] = [peers.normal(line) for line in lines if "reject:" in line]
            outcome.statuses[host_name] = sorted(_status(line) for line in lines if " status=" in line)


def _envelope(line: str) -> str:
    return re.sub(r"SIZE=\d+", "SIZE=N", re.sub(r"ENVID=\S+", "ENVID=X", line))


def _content(content: bytes) -> str:
    """Ids and dates out of the way; so is the prose of a notice, which is everybody's own (docs/differs.md)."""
    text = peers.normal(content.decode("latin-1").replace("\r\n", "\n"))
    text = re.sub(r"QUEUEID\.\d+/", "QUEUEID.STAMP/", text)
    text = re.sub(r"(?s)(This is the mail system at host \S+\n).*?(\n<)", r"\1\2", text)
    return re.sub(r"\b\d{10}\.QUEUEID|QUEUEID\.\d{10}", "BOUNDARY", text)


def _mbox(content: bytes) -> str:
    text = re.sub(r"(?m)^(From \S+ ) ?.*$", r"\1DATE", _content(content))
    return "\n".join(sorted(re.split(r"(?m)^(?=From \S+ DATE$)", text)))


def _status(line: str) -> str:
    line = peers.normal(re.sub(r" delays?=[\d./]+,", "", line))
    return re.sub(r" conn_use=\d+,", "", line)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[str, Outcome]]:
    """The scenario on both systems."""
    base = Path(tempfile.mkdtemp(prefix="relays-"))
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


def test_replies(outcomes: dict[str, Outcome]) -> None:
    """Every reply of every conversation."""
    assert outcomes["estafeta"].replies == outcomes["postfix"].replies


def test_refusals_are_those_of_the_tutorial(outcomes: dict[str, Outcome]) -> None:
    """Third parties are refused, our domains and our networks are not: on both."""
    for outcome in outcomes.values():
        assert outcome.replies["outside to third"][3].startswith("554 5.7.1 <eva@lejos.test>: ")
        assert "Relay access denied" in outcome.replies["outside to third"][3]
        for title in ("outside to user", "outside to sub", "home, named in relay_domains", "desk to outside"):
            assert outcome.replies[title][-2].startswith("250 2.0.0 Ok: queued as"), title


@pytest.mark.parametrize("sink", ["world", "depart1"])
def test_relayed(outcomes: dict[str, Outcome], sink: str) -> None:
    """What came to the world and to the department: greeting, envelope, every header and line."""
    assert len(outcomes["postfix"].sinks[sink]) >= 5
    assert outcomes["estafeta"].sinks[sink] == outcomes["postfix"].sinks[sink]


def test_mailboxes(outcomes: dict[str, Outcome]) -> None:
    """The same mailboxes with the same messages: From line, Return-Path, Delivered-To, Received, body."""
    assert set(outcomes["postfix"].boxes) >= {"relay/games", "smtp/games", "smtp/mail"}
    assert outcomes["estafeta"].boxes == outcomes["postfix"].boxes


def test_log(outcomes: dict[str, Outcome]) -> None:
    """Refusals and outcomes are logged alike."""
    assert outcomes["estafeta"].rejects == outcomes["postfix"].rejects
    assert outcomes["estafeta"].statuses == outcomes["postfix"].statuses


def test_deferred(outcomes: dict[str, Outcome]) -> None:
    """While the relay was down the message was in the queue."""
    for outcome in outcomes.values():
        assert outcome.queued == ["aplazado@world.test"]

"""Access control in the running system: what actions do to the message, verification by probes, DNS that does not answer."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import netns, peers
from support.instance import MASTER_CF, Client, Instance, wait_for

MASTER = MASTER_CF + "verify unix - - y - 1 verify\n"
SETTINGS = """\
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_sender_restrictions = check_sender_access texthash:{etc}/senders
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{ u@gone.test = reject_unverified_recipient }}, {{ u@box.test = reject_unverified_recipient }} }}
unverified_recipient_reject_code = 550
transport_maps = inline:{{ {{ gone.test = error:5.1.1 nobody here }}, {{ discard.test = discard: }} }}
"""
SENDERS = """\
prepend@x.test PREPEND X-First: one
redirect@x.test REDIRECT other@box.test
bcc@x.test BCC copy@box.test
hold@x.test HOLD
discard@x.test DISCARD
bye@x.test 421 4.7.0 go
"""


@pytest.fixture
def talk(system: Instance) -> Iterator[Client]:
    with Client(system.port) as client:
        client.reply()
        client.ask(b"EHLO client.test")
        yield client


@pytest.fixture
def system() -> Iterator[Instance]:
    directory = tempfile.mkdtemp(prefix="estafeta-access-")
    made = Instance(SETTINGS.format(etc=f"{directory}/etc"), MASTER, directory)
    made.write("senders", SENDERS)
    made.start()
    yield made
    made.stop()
    made.remove()


def mails(system: Instance, user: str) -> list[str]:
    """What is in a maildir."""
    return [path.read_text() for path in sorted((system.mail / user / "new").glob("*"))]


def test_actions_take_effect(system: Instance, talk: Client) -> None:
    content = b"Subject: x\r\n\r\nbody"
    for sender in (b"prepend", b"redirect", b"bcc", b"hold", b"discard"):
        assert talk.send(sender + b"@x.test", [b"joe@box.test"], content).startswith(b"250 2.0.0 Ok: queued as ")
    wait_for(lambda: len(mails(system, "joe")) == 2 and mails(system, "other") and mails(system, "copy"), what="delivery")
    prepended = next(text for text in mails(system, "joe") if "X-First" in text)
    assert prepended.index("X-First: one") < prepended.index("Received:")
    assert "redirect@x.test" in mails(system, "other")[0]
    listing = system.command("postqueue", "-p").stdout
    assert listing.count("!") == 1 and "hold@x.test" in listing
    assert len(mails(system, "joe")) == 2
    assert talk.ask(b"MAIL FROM:<bye@x.test>").startswith(b"250")
    assert talk.ask(b"RCPT TO:<joe@box.test>").startswith(b"421 4.7.0 <bye@x.test>: Sender address rejected: go")
    assert talk.reply() == b""


def test_a_large_message_is_acted_on(system: Instance, talk: Client) -> None:
    content = b"Subject: big\r\n\r\n" + b"0123456789abcdef\r\n" * 40000
    assert talk.send(b"discard@x.test", [b"joe@box.test"], content).startswith(b"250")
    assert talk.send(b"redirect@x.test", [b"joe@box.test"], content).startswith(b"250")
    wait_for(lambda: mails(system, "other"), what="delivery")
    assert mails(system, "joe") == []


def test_verification(system: Instance, talk: Client) -> None:
    talk.ask(b"MAIL FROM:<a@b.test>")
    started = time.monotonic()
    assert talk.ask(b"RCPT TO:<u@gone.test>") == (
        b"550 5.1.1 <u@gone.test>: Recipient address rejected: undeliverable address: nobody here\r\n"
    )
    assert talk.ask(b"RCPT TO:<u@box.test>").startswith(b"250 ")
    assert time.monotonic() - started < 5, "the answer comes with the result, not after three polls"
    assert "status=deliverable" in system.log_path.read_text()
    assert "status=undeliverable" in system.log_path.read_text()
    assert mails(system, "u") == [], "a probe is not delivered"
    assert "Mail queue is empty" in system.command("postqueue", "-p").stdout
    assert "is not implemented" not in system.command("postfix", "check").stderr


SLOW = """\
myhostname = me.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 10.5.1.1
virtual_mailbox_domains = box.test
virtual_mailbox_maps = static:any
virtual_transport = discard:
alias_maps =
smtpd_sender_restrictions = reject_unknown_sender_domain
smtpd_relay_restrictions = reject_unauth_destination
"""


@pytest.mark.skipif(netns.missing() is not None, reason=netns.missing() or "")
def test_dns_that_does_not_answer_holds_up_nobody_else() -> None:
    base = Path(tempfile.mkdtemp(prefix="access-slow-"))
    base.chmod(0o755)
    zones: dict[str, object] = {"drop.test": "DROP", "good.test": {"A": ["10.6.0.1"]}}
    hosts = {"mail": ["10.5.1.1/16"], "client": ["10.5.1.10/16"]}
    with netns.network(hosts, zones, ["10.5.0.1/16"]) as network:
        master = "10.5.1.1:2525 inet n - y - 20 smtpd\n"
        system = peers.Peer("estafeta", base, SLOW, master, prefix=network.prefix("mail"))
        try:
            system.start()
            slow = [peers.Conversation(network.connect("client", "10.5.1.1", 2525)) for _ in range(5)]
            for talk in slow:
                talk.reply()
                talk.ask(b"EHLO c.test")
                talk.ask(b"MAIL FROM:<a@drop.test>")
                talk.send(b"RCPT TO:<u@box.test>\r\n")
            started = time.monotonic()
            quick = peers.Conversation(network.connect("client", "10.5.1.1", 2525))
            replies = quick.message("a@good.test", ["u@box.test"], b"Subject: x\r\n\r\nx\r\n")
            assert any("queued as" in reply for reply in replies), replies
            assert time.monotonic() - started < 4
            for talk in slow:
                talk.close()
        finally:
            system.stop()
            shutil.rmtree(base, ignore_errors=True)

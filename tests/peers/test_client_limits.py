"""smtpd_client_*_limit: Debian's Postfix and Estafeta refuse at the same event, with the same words."""

from __future__ import annotations

import re
import shutil
import tempfile
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
mydestination =
mynetworks = 127.9.0.0/16
virtual_mailbox_domains = box.test
virtual_mailbox_maps = static:any
virtual_transport = discard:
alias_maps =
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_client_connection_count_limit = 0
notify_classes =
"""
LISTENERS = {
    "count": "-o smtpd_client_connection_count_limit=2",
    "connections": "-o smtpd_client_connection_rate_limit=2",
    "messages": "-o smtpd_client_message_rate_limit=2",
    "recipients": "-o smtpd_client_recipient_rate_limit=2",
}


def greet(port: int, source: str = "127.0.0.8") -> tuple[peers.Conversation, str]:
    """Connect; the greeting."""
    talk = peers.Conversation(peers.connect("127.0.0.1", port, source))
    return talk, talk.reply()


def scenario(ports: dict[str, int], system: peers.Peer) -> list[str]:
    """Go over each limit; every reply."""
    heard: list[str] = []
    open_now = []
    for _ in range(3):
        talk, greeting = greet(ports["count"])
        heard.append(greeting)
        open_now.append(talk)
    heard.append(open_now[2].reply())
    open_now[0].ask(b"QUIT")
    open_now[2].close()
    system.wait_log("disconnect from", 10, 2)

    def is_served() -> bool:
        talk, greeting = greet(ports["count"])
        talk.ask(b"QUIT")
        talk.close()
        return greeting.startswith("220")

    peers.wait_until(is_served, 5, "a place is free again")
    for talk in open_now:
        talk.close()
    others = [greet(ports["count"], "127.9.0.1") for _ in range(4)]
    heard += [greeting for _, greeting in others]
    for talk, _ in others:
        talk.close()
    for _ in range(3):
        talk, greeting = greet(ports["connections"])
        heard += [greeting, talk.ask(b"QUIT")]
        talk.close()
    talk, _ = greet(ports["messages"])
    talk.ask(b"EHLO c.test")
    for _ in range(3):
        heard += [talk.ask(b"MAIL FROM:<a@b.test>"), talk.ask(b"RSET")]
    talk.close()
    talk, _ = greet(ports["recipients"])
    talk.ask(b"EHLO c.test")
    heard.append(talk.ask(b"MAIL FROM:<a@b.test>"))
    heard += [talk.ask(b"RCPT TO:<a@box.test>") for _ in range(3)]
    talk.close()
    return heard


def test_the_same_limits() -> None:
    base = Path(tempfile.mkdtemp(prefix="limits-"))
    base.chmod(0o755)
    heard: dict[str, list[str]] = {}
    logged: dict[str, list[str]] = {}
    try:
        for name in peers.NAMES:
            ports = dict(zip(LISTENERS, free_ports(len(LISTENERS)), strict=True))
            master = "".join(f"127.0.0.1:{ports[key]} inet n - n - - smtpd {options}\n" for key, options in LISTENERS.items())
            system = peers.Peer(name, base / name, MAIN_CF, master)
            try:
                system.start()
                heard[name] = [peers.normal(line) for line in scenario(ports, system)]
                system.wait_log("Recipient address rate limit exceeded", 10)
                system.wait_log(r"disconnect from .* rcpt=2/3 ", 10)
                log = re.findall(r"/smtpd\[\d+\]: (warning: .*limit.*|disconnect .*commands=0.*)", system.log())
                logged[name] = [re.sub(r"127\.0\.0\.1:\d+", "PORT", line) for line in log]
            finally:
                system.stop()
    finally:
        shutil.rmtree(base, ignore_errors=True)
    print(system.log()) if False else None
    assert sum("too many" in line or "too much" in line for line in heard["postfix"]) == 4, heard["postfix"]
    assert heard["estafeta"] == heard["postfix"]
    assert {line for line in logged["estafeta"] if "limit" in line} == {line for line in logged["postfix"] if "limit" in line}
    assert set(logged["estafeta"]) == set(logged["postfix"])

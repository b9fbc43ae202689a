"""Restriction lists, access tables, DNS checks and DNS lists: Debian's Postfix and Estafeta side by side, in a network of their own.

Every reply and every log line about the client is compared, conversation by conversation (tests/support/access_cases.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from support import netns, peers
from support.access_cases import LISTENERS, NAMES, TABLE, TALKS, ZONES, Talk, policy
from support.policy_server import PolicyServer

REASON = peers.missing() or netns.missing()
pytestmark = [pytest.mark.skipif(REASON is not None, reason=REASON or ""), pytest.mark.xdist_group("peers")]

MAIN_CF = """\
myhostname = me.test
mydomain = here.test
myorigin = here.test
mydestination = here.test
mynetworks = 127.0.0.0/8
inet_interfaces = 10.5.1.1, 127.0.0.1
virtual_mailbox_domains = box.test
virtual_alias_domains = alias.test
virtual_mailbox_maps = static:any
local_recipient_maps =
relay_domains =
recipient_delimiter = +
alias_maps =
alias_database =
virtual_transport = discard:
local_transport = discard:
default_transport = discard:
smtpd_error_sleep_time = 0
smtpd_client_connection_count_limit = 0
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = permit
smtpd_client_restrictions =
smtpd_restriction_classes = strict
strict = reject_unauth_destination, reject_unknown_sender_domain
smtpd_sender_login_maps = inline:{ { owned@good.test = joe } }
parent_domain_matches_subdomains =
notify_classes =
address_verify_poll_delay = 1s
transport_maps = inline:{ { bounce.test = error:5.1.1 no such user there }, { defer.test = retry:4.2.1 not today } }
in_flow_delay = 0
"""
FILES = {
    "table": TABLE,
    "names": NAMES,
    "replies": "rbl.test $rbl_code 5.1.1 no $client_address $client_name $rbl_what $rbl_class ($sender_domain) ${rbl_reason?$rbl_reason}\n",
    "early": "unknown REJECT early\nnowhere.client.test HOLD\n10.5.1.13 421 gone\n",
}
# Said once at start here, or about look-ups that another test compares.
NOT_COMPARED = ("warning: hostname", "no SASL support", "will be removed from Postfix", "is deprecated. Use")
FIRST_PORT = 2600
SERVER = "10.5.1.1"


def master_cf() -> str:
    """A port for each listener."""
    lines = []
    for number, options in enumerate(LISTENERS.values()):
        option = " ".join(
            "-o " + word.strip().replace(" ", ",") for word in re.split(r"(?:^| )-o ", options) if word.strip()
        )
        lines.append(f"{SERVER}:{FIRST_PORT + number} inet n - n - - smtpd {option}\n")
    return "".join(lines)


def play(network: netns.Network, talk: Talk) -> list[str]:
    """Every reply."""
    port = FIRST_PORT + list(LISTENERS).index(talk.listener)
    conversation = peers.Conversation(network.connect("client", SERVER, port, talk.source))
    replies = [conversation.reply(), conversation.ask(b"EHLO " + talk.helo.encode())]
    replies.append(conversation.ask(f"MAIL FROM:<{talk.sender}>".encode()))
    replies += [conversation.ask(f"RCPT TO:<{recipient}>".encode()) for recipient in talk.recipients]
    replies.append(conversation.ask(b"DATA"))
    if replies[-1].startswith("354"):
        replies.append(conversation.ask(b"Subject: x\r\n\r\nx\r\n."))
    replies.append(conversation.ask(b"QUIT"))
    conversation.close()
    return [peers.normal(reply) for reply in replies]


# For each talk: the replies, what smtpd logged, what was asked of the policy server.
Heard = dict[str, list[tuple[list[str], list[str], list[str]]]]


@pytest.fixture(scope="module")
def everything() -> tuple[Heard, dict[str, list[str]]]:
    """Both systems, one after the other."""
    return run()


@pytest.fixture(scope="module")
def heard(everything: tuple[Heard, dict[str, list[str]]]) -> Heard:
    """System -> for each talk: its replies, its log lines, its questions to the policy server."""
    return everything[0]


def run() -> tuple[Heard, dict[str, list[str]]]:
    """Both systems, one after the other."""
    base = Path(tempfile.mkdtemp(prefix="access-"))
    base.chmod(0o755)
    found: Heard = {}
    results: dict[str, list[str]] = {}
    hosts = {"mail": [f"{SERVER}/16"], "client": [f"10.5.1.{n}/16" for n in (10, 11, 12, 13, 14)]}
    systems: list[peers.Peer] = []
    try:
        with contextlib.ExitStack() as stack, netns.network(hosts, ZONES, ["10.5.0.1/16"]) as network:
            for name in peers.NAMES:
                system = peers.Peer(name, base / name, MAIN_CF, master_cf(), files=FILES, prefix=network.prefix("mail"))
                systems.append(system)
                system.start()
                server = PolicyServer(network.listen("mail", "127.0.0.1", 9998), policy)
                stack.callback(server.close)
                found[name] = []
                for number, talk in enumerate(TALKS, 1):
                    before = len(system.log())
                    replies = play(network, talk)
                    system.wait_log("disconnect from", 20, number)
                    found[name].append((replies, log_of(system.log()[before:]), asked(server)))
                results[name] = deliveries(system)
                system.stop()
                server.close()
            return found, results
    finally:
        for system in systems:
            system.stop()
        if not os.environ.get("KEEP"):
            shutil.rmtree(base, ignore_errors=True)


def asked(server: PolicyServer) -> list[str]:
    """What the policy server was asked since the last time; what differs between two runs is made equal."""
    requests, server.requests[:] = [*server.requests], []
    lines = [f"{name}={value}" for request in requests for name, value in request]
    return [re.sub(r"^(client_port|instance|queue_id)=.+", r"\1=something", line) for line in lines]


def deliveries(system: peers.Peer) -> list[str]:
    """What became of the messages: one line for each recipient, in order of the log, and what is held."""
    peers.wait_until(lambda: b"!" in system.command("postqueue", "-p").stdout and not re.search(
        rb"^[0-9A-F]+[* ]", system.command("postqueue", "-p").stdout, re.MULTILINE), 20, "the queue is done")  # fmt: skip
    found = re.findall(r"(?:discard|local|virtual|smtp|error)\[\d+\]: [0-9A-F]+: (to=.*)", system.log())
    held = system.command("postqueue", "-p").stdout.count(b"!")
    return [*sorted(re.sub(r", delays?=[^,]*", "", line) for line in found), f"{held} held"]


def log_of(log: str) -> list[str]:
    """What smtpd said, without what other services say in between."""
    lines = [line.partition("]: ")[2] for line in log.splitlines() if "/smtpd[" in line]
    kept = [re.sub(r"/tmp/access-\w+/\w+", "TOP", line) for line in lines if not any(text in line for text in NOT_COMPARED)]
    return [peers.normal(line) for line in kept]


@pytest.mark.parametrize("number", range(len(TALKS)), ids=lambda n: f"{n}-{TALKS[n].listener}-{TALKS[n].sender}")
def test_replies_and_log(heard: Heard, number: int) -> None:
    """Reply by reply, line by line."""
    ours, theirs = heard["estafeta"][number], heard["postfix"][number]
    assert ours[0] == theirs[0]
    assert ours[1] == theirs[1]
    assert ours[2] == theirs[2]


def test_what_became_of_the_mail(everything: tuple[Heard, dict[str, list[str]]]) -> None:
    """HOLD, DISCARD, FILTER, REDIRECT and BCC have taken effect."""
    results = everything[1]
    assert any("orig_to=" in line for line in results["postfix"]), "nothing was redirected"
    assert results["estafeta"] == results["postfix"]

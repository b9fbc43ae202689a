"""local_header_rewrite_clients and smtpd_forbid_bare_newline, beside Debian's Postfix: whose headers are completed, who may send
bare line feeds.
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

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.xdist_group("peers"),
]

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination =
mynetworks = 127.0.0.5
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.0/8
smtpd_sasl_auth_enable = yes
smtpd_relay_restrictions =
smtpd_recipient_restrictions = permit_mynetworks, check_client_access static:OK, reject
append_dot_mydomain = yes
alias_maps =
alias_database =
transport_maps =
virtual_mailbox_domains = box.test
virtual_mailbox_maps = static:box/
virtual_mailbox_base = {top}/mail
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
"""
LISTS = {
    "default": "permit_inet_interfaces",
    "none": "",
    "networks": "permit_mynetworks",
    "both": "permit_mynetworks, permit_inet_interfaces",
    "sasl": "permit_sasl_authenticated",
    "all": "static:all",
    "table": "check_address_map,texthash:{etc}/clients",
    "certificates": "permit_tls_clientcerts,permit_tls_all_clientcerts",
}
CLIENTS = ("127.0.0.1", "127.0.0.5", "127.0.0.6")
CONTENT = b"From: user\r\nTo: other@sub\r\n\r\nbody\r\n"
FILES = {"clients": "127.0.0.6 yes\n"}
BARE = {"yes": "yes", "no": "no", "normalize": "normalize", "reject": "reject"}


@dataclass
class System:
    peer: peers.Peer
    ports: dict[str, int]


@pytest.fixture(scope="module")
def systems() -> Iterator[list[System]]:
    top = Path(tempfile.mkdtemp(prefix="locals-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, top, True)
        found = []
        for name in peers.NAMES:
            ports = {key: free_port() for key in (*LISTS, *BARE)}
            lines = [f"{ports[key]} inet n - n - - smtpd -o local_header_rewrite_clients={LISTS[key].replace(', ', ',')}" for key in LISTS]
            lines += [
                f"{ports[key]} inet n - n - - smtpd -o smtpd_forbid_bare_newline={value}"
                + (" -o smtpd_forbid_bare_newline_reject_code=554" if key == "reject" else "")
                for key, value in BARE.items()
            ]
            peer = peers.Peer(name, top / name, MAIN_CF, "\n".join(lines) + "\n", files=FILES)
            peer.start()
            stack.callback(peer.stop)
            found.append(System(peer, ports))
        yield found


def _delivered(system: System, port: str, client: str, login: str) -> tuple[list[str], list[bytes]]:
    user = f"{port}-{client}-{login}".lower()
    conversation = peers.Conversation(peers.connect("127.0.0.1", system.ports[port], client))
    replies = [conversation.reply()]
    replies.append(conversation.ask(f"XCLIENT LOGIN={login}".encode() if login else b"NOOP"))
    for line in (b"EHLO x", b"MAIL FROM:<user>", f"RCPT TO:<{user}@box.test>".encode(), b"DATA"):
        replies.append(conversation.ask(line))
    conversation.send(CONTENT)
    replies.append(conversation.ask(b"."))
    conversation.close()
    queue_id = replies[-1].split()[-1]
    system.peer.wait_log(rf"{queue_id}: to=.*status=sent")
    place = system.peer.mail / "box" / "new"
    content = next(text for text in map(Path.read_bytes, place.glob("*")) if queue_id.encode() in text)
    headers = [line for line in content.splitlines() if re.match(rb"(?i)(from|to|return-path):", line)]
    present = sorted({line.partition(b":")[0] for line in content.partition(b"\n\n")[0].splitlines() if b":" in line})
    return [peers.normal(reply) for reply in replies[3:]], [*headers, *present]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("port", LISTS)
def test_whose_headers_are_completed(systems: list[System], port: str, client: str) -> None:
    theirs, ours = (_delivered(system, port, client, "") for system in systems)
    assert ours == theirs


@pytest.mark.parametrize("port", ["sasl", "default"])
def test_who_has_logged_in(systems: list[System], port: str) -> None:
    theirs, ours = (_delivered(system, port, "127.0.0.6", "somebody") for system in systems)
    assert ours == theirs


@pytest.mark.parametrize("client", ["127.0.0.5", "127.0.0.6"])
@pytest.mark.parametrize("port", BARE)
def test_bare_line_feeds_within_a_message(systems: list[System], port: str, client: str) -> None:
    seen = []
    for system in systems:
        conversation = peers.Conversation(peers.connect("127.0.0.1", system.ports[port], client))
        replies = [conversation.reply(), conversation.ask(b"NOOP")]
        for line in (b"EHLO x", b"MAIL FROM:<user@here.test>", b"RCPT TO:<bare@box.test>", b"DATA"):
            replies.append(conversation.ask(line))
        conversation.send(b"Subject: x\n\nbody\r\n")
        replies.append(conversation.ask(b"."))
        replies.append(conversation.ask(b"NOOP"))
        conversation.close()
        log = [peers.normal(line.partition("]: ")[2]) for line in system.peer.log().splitlines() if "bare <LF>" in line]
        seen.append(([peers.normal(reply) for reply in replies[3:]], log))
    assert seen[1] == seen[0]

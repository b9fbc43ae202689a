"""smtpd's conversations: transactions start clean, errors are counted, content survives what happens around it."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator

import pytest

from support.instance import Client, Instance, running, wait_for

LARGE = b"x" * 70 + b"\r\n"


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    settings = (
        "smtpd_hard_error_limit = 1000\nsmtpd_error_sleep_time = 0\nsmtpd_recipient_limit = 4\nmessage_size_limit = 3000000\n"
        "smtpd_junk_command_limit = 10000\nsmtpd_soft_error_limit = 1000\nmax_idle = 60s\n"
    )
    with running(settings) as started:
        yield started
        assert started.unexpected() == []


def connect(instance: Instance) -> Client:
    client = Client(instance.port)
    assert client.reply().startswith(b"220")
    assert client.ask(b"EHLO client.example").startswith(b"250")
    return client


MAIL = b"MAIL FROM:<a@test.example>"
STATES: dict[str, list[bytes]] = {
    "ready": [],
    "mail": [MAIL],
    "rcpt": [MAIL, b"RCPT TO:<old@box.test>"],
    "refused rcpt": [MAIL, b"RCPT TO:<x@elsewhere.example@nowhere>"],
    "bdat": [MAIL, b"RCPT TO:<old@box.test>", b"BDAT 12\r\nSubject: x"],
    "sent": [MAIL, b"RCPT TO:<sent@box.test>", b"BDAT 14 LAST\r\nSubject: x\r\n"],
    "failed data": [MAIL, b"DATA"],
}
COMMANDS = [
    b"RSET", b"EHLO again.example", b"HELO again.example", b"NOOP", b"VRFY u@box.test", MAIL, b"MAIL FROM:<broken",
    b"MAIL FROM:<a@b.example> SIZE=99999999", b"RCPT TO:<old@box.test>", b"RCPT TO:<broken", b"UNKNOWN", b"HELO", b"RSET x",
    b"DATA x",
]  # fmt: skip


def in_transaction(state: str, command: bytes) -> bool | None:
    """After ``command`` in ``state``: is a transaction open? None: either may be."""
    verb = command.split()[0]
    open_before = state in ("mail", "rcpt", "refused rcpt", "bdat", "failed data")
    if command == b"RSET" or (verb in (b"EHLO", b"HELO") and b" " in command):
        return False
    if state == "bdat":
        return None  # MAIL is refused in other words there
    if command == MAIL:
        return True
    return open_before


@pytest.mark.parametrize("state", list(STATES))
def test_every_command_in_every_state(instance: Instance, state: str) -> None:
    """Whatever came before: a transaction that is over leaves nothing, and the next message has its own recipients only."""
    for number, command in enumerate(COMMANDS):
        with connect(instance) as client:
            for line in STATES[state]:
                assert client.ask(line)[:1] in b"2345", line
            assert client.ask(command)[:1] in b"2345"
            expected = in_transaction(state, command)
            if expected is not None:
                again = client.ask(MAIL)
                assert again.startswith(b"503 5.5.1 Error: nested MAIL" if expected else b"250"), (state, command, again)
            client.ask(b"RSET")
            assert client.ask(b"RCPT TO:<x@box.test>").startswith(b"503 5.5.1 Error: need MAIL"), (state, command)
            assert client.ask(b"DATA").startswith(b"503"), (state, command)
            user = f"new-{list(STATES).index(state)}-{number}".encode()
            reply = client.send(b"second@test.example", [user + b"@box.test"], b"Subject: y\r\n\r\nbody")
            assert reply.startswith(b"250"), (state, command, reply)
            queue_id = reply.split()[-1].decode()
            instance.wait_log(rf"{queue_id}: from=<second@test\.example>, size=\d+, nrcpt=1 ")
    assert instance.mailbox("old") == [], "a recipient of a dropped transaction got something"


def test_pipelined_after_data(instance: Instance) -> None:
    with connect(instance) as client:
        one = b"MAIL FROM:<a@test.example>\r\nRCPT TO:<p1@box.test>\r\nDATA\r\n"
        client.socket.sendall(one)
        assert [client.reply()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        two = b"MAIL FROM:<b@test.example>\r\nRCPT TO:<p2@box.test>\r\nRCPT TO:<p3@box.test>\r\nDATA\r\n"
        client.socket.sendall(b"Subject: 1\r\n\r\nbody\r\n.\r\n" + two)
        assert [client.reply()[:3] for _ in range(5)] == [b"250", b"250", b"250", b"250", b"354"]
        client.socket.sendall(b"Subject: 2\r\n\r\nbody\r\n.\r\nQUIT\r\n")
        assert [client.reply()[:3] for _ in range(2)] == [b"250", b"221"]
    wait_for(lambda: all(len(instance.mailbox(f"p{n}")) == 1 for n in (1, 2, 3)), what="three copies")


def test_recipient_limit(instance: Instance) -> None:
    with connect(instance) as client:
        client.ask(MAIL)
        replies = [client.ask(b"RCPT TO:<u%d@box.test>" % n) for n in range(6)]
        assert [reply[:3] for reply in replies] == [b"250"] * 4 + [b"452"] * 2
        assert client.ask(b"RSET").startswith(b"250")


def test_bdat_errors_drain(instance: Instance) -> None:
    """A refused BDAT swallows its octets, whatever they look like; the conversation goes on."""
    with connect(instance) as client:
        client.socket.sendall(b"BDAT 25 LAST\r\nQUIT\r\nQUIT\r\nQUIT\r\nNOOP \r\n")
        assert client.reply().startswith(b"503")
        assert client.ask(b"NOOP").startswith(b"250")
        client.ask(MAIL)
        client.ask(b"RCPT TO:<drain@box.test>")
        client.socket.sendall(b"BDAT 4000000 LAST\r\n" + b"y" * 4000000)
        assert client.reply()[:3] == b"552"
        assert client.ask(b"NOOP").startswith(b"250")
        assert client.send(b"a@test.example", [b"drain@box.test"], b"Subject: z\r\n\r\nbody").startswith(b"250")
    wait_for(lambda: len(instance.mailbox("drain")) == 1, what="one message")


def test_a_disconnect_in_the_middle_leaves_nothing(instance: Instance) -> None:
    for size in (10, 100000, 1000000):
        for bdat in (False, True):
            with connect(instance) as client:
                client.ask(MAIL)
                client.ask(b"RCPT TO:<gone@box.test>")
                if bdat:
                    client.socket.sendall(b"BDAT %d LAST\r\n" % (size + 1000))
                else:
                    client.ask(b"DATA")
                client.socket.sendall(LARGE * (size // len(LARGE) + 1))
    incoming = instance.spool / "incoming"
    wait_for(instance.queue_is_empty, 10, "an empty queue")
    wait_for(lambda: not [n for n in os.listdir(incoming) if not n.startswith("seg-")], 10, "no half files")
    assert instance.mailbox("gone") == []


def test_cleanup_is_lost_in_the_middle(instance: Instance) -> None:
    """A large message on its way when cleanup dies: 451, and the same conversation sends it again with success."""
    with connect(instance) as client:
        client.ask(MAIL)
        client.ask(b"RCPT TO:<lost@box.test>")
        client.ask(b"DATA")
        client.socket.sendall(b"Subject: large\r\n\r\n" + LARGE * 15000)
        wait_for(lambda: [n for n in os.listdir(instance.spool / "incoming") if not n.startswith("seg-")], 10, "the stream")
        for pid in instance.pids("cleanup"):
            os.kill(pid, signal.SIGKILL)
        client.socket.sendall(LARGE * 15000 + b".\r\n")
        reply = client.reply()
        assert reply.startswith(b"451 4.3.0"), reply
        assert client.send(b"a@test.example", [b"lost@box.test"], b"Subject: l\r\n\r\n" + LARGE * 5000).startswith(b"250")
    wait_for(lambda: len(instance.mailbox("lost")) == 1, what="one message")


def test_error_limits() -> None:
    settings = "smtpd_soft_error_limit = 2\nsmtpd_hard_error_limit = 4\nsmtpd_error_sleep_time = 1s\nsmtpd_junk_command_limit = 3\n"
    with running(settings) as instance:
        with connect(instance) as client:
            times = []
            for _ in range(3):
                start = time.monotonic()
                assert client.ask(b"WHAT").startswith(b"500 5.5.2")
                times.append(time.monotonic() - start)
            assert max(times[:2]) < 0.5 <= times[2], times
            replies = client.ask(b"WHAT") + client.reply()
            assert b"421 4.7.0 mail.test.example Error: too many errors" in replies, replies
            assert client.reply() == b""
        instance.wait_log("too many errors after UNKNOWN from localhost")
        with connect(instance) as client:  # a message resets nothing, junk is counted between messages
            replies = b"".join(client.ask(b"NOOP") for _ in range(3))
            assert replies.count(b"250") == 3


def test_what_stays_of_many_sessions_at_once(instance: Instance) -> None:
    """Interleaved conversations do not mix: each message has its own sender and recipients."""
    clients = [connect(instance) for _ in range(12)]
    steps: list[list[bytes]] = [
        [b"MAIL FROM:<s%d@test.example>" % n, b"RCPT TO:<mix%d@box.test>" % n, b"DATA", b"Subject: %d\r\n\r\n%d\r\n." % (n, n)]
        for n in range(len(clients))
    ]
    for step, (n, client) in itertools.product(range(4), enumerate(clients)):
        assert client.ask(steps[n][step])[:1] in b"23"
    for client in clients:
        client.close()
    wait_for(lambda: all(len(instance.mailbox(f"mix{n}")) == 1 for n in range(len(clients))), what="all")
    for n in range(len(clients)):
        text = instance.mailbox(f"mix{n}")[0].read_bytes()
        assert text.startswith(b"Return-Path: <s%d@test.example>\n" % n) and text.endswith(b"\n%d\n" % n)

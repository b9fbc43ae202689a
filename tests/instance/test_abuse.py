"""Clients that misbehave: they get the answer they deserve, others notice nothing, nothing is delivered by halves."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from support.instance import Client, Instance, running, wait_for

LIMIT = 100_000


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    settings = f"message_size_limit = {LIMIT}\nsmtpd_timeout = 2s\nmailbox_size_limit = 0\nvirtual_mailbox_limit = 0\n"
    with running(settings) as started:
        yield started
        assert started.unexpected() == []
        with Client(started.port) as client:
            assert client.reply().startswith(b"220 ")


def greeted(instance: Instance) -> Client:
    client = Client(instance.port)
    client.reply()
    client.ask(b"EHLO client.example")
    return client


def test_lost_in_the_middle_of_data(instance: Instance) -> None:
    for ending in (b"Subject: half\r\n\r\nbody", b"x\r\n.", b"x\r\n.\n", b"x" * 50_000):
        with greeted(instance) as client:
            client.ask(b"MAIL FROM:<a@test.example>")
            client.ask(b"RCPT TO:<half@box.test>")
            client.ask(b"DATA")
            client.socket.sendall(ending)
    instance.wait_log(r"lost connection after DATA \(\d+ bytes\) from localhost", count=4)
    with greeted(instance) as client:
        client.ask(b"MAIL FROM:<a@test.example>")
        client.ask(b"RCPT TO:<half@box.test>")
        client.socket.sendall(b"BDAT 1000\r\nhalf")
    instance.wait_log(r"lost connection after BDAT \(4 bytes\) from localhost")
    with greeted(instance) as client:
        assert client.send(b"a@test.example", [b"whole@box.test"], b"\r\nx").startswith(b"250 ")
    wait_for(lambda: instance.mailbox("whole"), what="the whole message")
    assert instance.mailbox("half") == []


def test_half_closed(instance: Instance) -> None:
    with greeted(instance) as client:
        client.socket.sendall(b"NOOP\r\nMAIL FROM:<a@test.example>\r\nNOO")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.reply() == b"250 2.0.0 Ok\r\n"
        assert client.reply() == b"250 2.1.0 Ok\r\n"
        assert client.reply() == b""  # and the server closes too


def test_silence_is_timed_out(instance: Instance) -> None:
    with Client(instance.port) as idle, greeted(instance) as slow:
        idle.reply()
        slow.ask(b"MAIL FROM:<a@test.example>")
        slow.ask(b"RCPT TO:<half@box.test>")
        slow.ask(b"DATA")
        slow.socket.sendall(b"Subject: never\r\n\r\nends")
        say = b"421 4.4.2 mail.test.example Error: timeout exceeded\r\n"
        assert (idle.reply(), idle.reply()) == (say, b"")
        assert (slow.reply(), slow.reply()) == (say, b"")
    instance.wait_log(r"timeout after CONNECT from localhost\[127.0.0.1\]")
    instance.wait_log(r"timeout after DATA \(\d+ bytes\) from localhost\[127.0.0.1\]")
    assert instance.mailbox("half") == []


def test_endless_command_line(instance: Instance) -> None:
    with greeted(instance) as client:
        reply = client.ask(b"MAIL FROM:<" + b"x" * 3_000_000 + b"@test.example>")
        assert reply[:1] == b"5", reply
        while client.ask(b"MAIL FROM:<a@test.example>")[:1] == b"5":
            pass  # what was left of the line was taken for commands
    with greeted(instance) as client:
        assert client.send(b"a@test.example", [b"long@box.test"], b"Subject: " + b"y" * 60_000 + b"\r\n\r\nx").startswith(b"250 ")
    wait_for(lambda: instance.mailbox("long"), what="the message with a long line")


def test_too_many_recipients(instance: Instance) -> None:
    with greeted(instance) as client:
        client.ask(b"MAIL FROM:<a@test.example>")
        commands = b"".join(b"RCPT TO:<r%d@discard.test>\r\n" % number for number in range(1001))
        client.socket.sendall(commands)
        replies = [client.reply() for _ in range(1001)]
        assert set(replies[:1000]) == {b"250 2.1.5 Ok\r\n"}
        assert replies[1000] == b"452 4.5.3 Error: too many recipients\r\n"
        assert client.ask(b"DATA").startswith(b"354 ")
        reply = client.ask(b"\r\nx\r\n.")
        assert reply.startswith(b"250 2.0.0 Ok: queued as "), reply
        queue_id = reply.split()[-1].decode()
        instance.wait_log(rf"qmgr\[\d+\]: {queue_id}: removed")
        assert instance.log().count(f"{queue_id}: to=<r") == 1000


def test_message_size(instance: Instance) -> None:
    with greeted(instance) as client:
        assert client.ask(b"MAIL FROM:<a@test.example> SIZE=%d" % (LIMIT + 1)) == b"552 5.3.4 Message size exceeds fixed limit\r\n"
        fits = b"\r\n" + b"x" * 70 + b"\r\n"
        over = b"\r\n" + (b"x" * 78 + b"\r\n") * (LIMIT // 80 + 10)
        assert client.send(b"a@test.example", [b"over@box.test"], over) == b"552 5.3.4 Error: message file too big\r\n"
        assert client.send(b"a@test.example", [b"fits@box.test"], fits).startswith(b"250 "), "the session goes on"
        client.ask(b"MAIL FROM:<a@test.example>")
        client.ask(b"RCPT TO:<over@box.test>")
        half = over[: len(over) // 2 + 200]
        client.socket.sendall(b"BDAT %d\r\n" % len(half) + half)
        assert client.reply().startswith(b"250 ")
        client.socket.sendall(b"BDAT %d LAST\r\n" % len(half) + half)
        assert client.reply() == b"552 5.3.4 Chunk exceeds message size limit\r\n"
        client.ask(b"RSET")
        assert client.send(b"a@test.example", [b"fits@box.test"], fits).startswith(b"250 "), "and goes on"
    wait_for(lambda: len(instance.mailbox("fits")) == 2, what="what fits")
    assert instance.mailbox("over") == []


def test_garbage_from_many_at_once(instance: Instance) -> None:
    clients = [Client(instance.port) for _ in range(100)]
    for number, client in enumerate(clients):
        client.socket.sendall(bytes(range(256)) * (number % 7 + 1) + b"\r\n\0\r\n")
    with greeted(instance) as polite:
        assert polite.send(b"a@test.example", [b"polite@box.test"], b"\r\nx").startswith(b"250 ")
    for client in clients:
        client.close()
    wait_for(lambda: instance.mailbox("polite"), what="mail of the polite client")


def test_idle_workers_go() -> None:
    with running("max_idle = 1s\n") as instance:
        with greeted(instance) as client:
            assert client.send(b"a@test.example", [b"x@discard.test"], b"\r\nx").startswith(b"250 ")
        instance.wait_log(r": removed")
        lasting = ["master", "pickup", "qmgr"]

        def only_the_lasting() -> bool:
            titles = instance.processes().values()
            return all(any(name in title for name in lasting) for title in titles)

        wait_for(only_the_lasting, 20, f"idle workers end: {instance.processes()}")
        with greeted(instance) as client:  # and they come again
            assert client.send(b"a@test.example", [b"joe@box.test"], b"\r\nx").startswith(b"250 ")
        wait_for(lambda: instance.mailbox("joe"), what="mail after the idle time")
        assert "warning" not in instance.log()

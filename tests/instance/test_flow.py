"""Mail through the real master and daemons."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.instance import Client, Instance, running, wait_for


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with running() as started:
        yield started
        assert started.unexpected() == []


def test_discard_and_log_lines(instance: Instance) -> None:
    with Client(instance.port) as client:
        assert client.reply() == b"220 mail.test.example ESMTP Postfix\r\n"
        client.ask(b"EHLO client.example")
        reply = client.send(b"a@test.example", [b"x@discard.test"], b"Subject: x\r\n\r\nbody")
        assert reply.startswith(b"250 2.0.0 Ok: queued as ")
        queue_id = reply.split()[-1].decode()
        assert client.ask(b"QUIT") == b"221 2.0.0 Bye\r\n"
        instance.wait_log(rf"qmgr\[\d+\]: {queue_id}: removed")
        log = instance.log()
        assert f"{queue_id}: client=localhost[127.0.0.1]" in log
        assert f"{queue_id}: from=<a@test.example>, size=" in log
        assert f"{queue_id}: to=<x@discard.test>, relay=none, delay=" in log
        assert "dsn=2.0.0, status=sent (discard.test)" in log


def test_maildir(instance: Instance) -> None:
    with Client(instance.port) as client:
        client.reply()
        client.ask(b"EHLO client.example")
        reply = client.send(b"a@test.example", [b"joe@box.test"], b"Subject: hello\r\n\r\n..dots\r\nand more")
        assert reply.startswith(b"250 ")
        client.ask(b"QUIT")
        (path,) = wait_for(lambda: instance.mailbox("joe"), what="a message for joe")  # type: ignore[misc]
        text = path.read_bytes()
        assert text.startswith(b"Return-Path: <a@test.example>\n")
        assert b"Delivered-To: joe@box.test\n" in text
        assert b"\nSubject: hello\n" in text
        assert text.endswith(b"\n.dots\nand more\n")
        assert b"\r" not in text


def test_large_message_streams_whole(instance: Instance) -> None:
    with Client(instance.port) as client:
        client.reply()
        client.ask(b"EHLO client.example")
        body = b"".join(b"line %d of a large message, long enough to make some bulk\r\n" % n for n in range(60000))
        reply = client.send(b"a@test.example", [b"big@box.test"], b"Subject: big\r\n\r\n" + body)
        assert reply.startswith(b"250 "), reply
        (path,) = wait_for(lambda: instance.mailbox("big"), what="the large message")  # type: ignore[misc]
        assert path.read_bytes().partition(b"\n\n")[2] == body.replace(b"\r\n", b"\n") + b"\n"
        wait_for(instance.queue_is_empty, what="an empty queue")


def test_refusals(instance: Instance) -> None:
    with Client(instance.port) as client:
        client.reply()
        assert client.ask(b"RCPT TO:<a@b.c>").startswith(b"503 5.5.1 Error: need MAIL command")
        client.ask(b"HELO x")
        assert client.ask(b"DATA").startswith(b"503 5.5.1 Error: need RCPT command")
        assert client.ask(b"MAIL FROM:<a@test.example>").startswith(b"250")
        assert client.ask(b"MAIL FROM:<a@test.example>").startswith(b"503 5.5.1 Error: nested MAIL command")
        assert client.ask(b"RCPT TO:<x@discard.test>") == b"250 2.1.5 Ok\r\n"
        assert client.ask(b"RSET") == b"250 2.0.0 Ok\r\n"
        assert client.ask(b"DATA").startswith(b"503")

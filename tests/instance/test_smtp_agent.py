"""smtp(8) and lmtp(8) under the real master: relayed, deferred and tried again, refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.instance import Client, Instance, running, wait_for
from support.ports import free_port
from support.smtp_sink import SmtpSink
from support.smtp_sink_thread import SinkThread

PORT = free_port()


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    settings = (
        "transport_maps = inline:{ "
        f"{{ out.test = smtp:[127.0.0.1]:{PORT} }}, {{ mail.lmtp.test = lmtp:unix:private/store }} }}"
    )
    with running(settings) as started:
        yield started


def _send(instance: Instance, *recipients: bytes) -> str:
    with Client(instance.port) as client:
        client.reply()
        client.ask(b"EHLO client.example")
        reply = client.send(b"a@test.example", list(recipients), b"Subject: hello\r\n\r\n..dots\r\nand more")
        client.ask(b"QUIT")
    assert reply.startswith(b"250 "), reply
    return reply.split()[-1].decode()


def test_relayed_after_a_deferral(instance: Instance) -> None:
    queue_id = _send(instance, b"x@out.test")
    instance.wait_log(rf"{queue_id}: to=<x@out\.test>, relay=none, .*dsn=4\.4\.1, status=deferred \(connect to 127\.0\.0\.1")
    with SinkThread(SmtpSink(port=PORT)) as sink:
        instance.wait_log(rf"postfix/smtp\[\d+\]: {queue_id}: to=<x@out\.test>, relay=127\.0\.0\.1\[127\.0\.0\.1\]:{PORT}, .*"
                          r"dsn=2\.0\.0, status=sent \(250 2\.0\.0 Ok: queued\)")  # fmt: skip
        (content,) = sink.contents
        assert content.endswith(b"\r\n..dots\r\nand more\r\n")
    instance.wait_log(rf"{queue_id}: removed")
    wait_for(instance.queue_is_empty, what="an empty queue")


def test_many_messages_share_sessions(instance: Instance) -> None:
    with SinkThread(SmtpSink(port=PORT)) as sink:
        for number in range(40):
            _send(instance, b"x%d@out.test" % number)
        wait_for(lambda: len(sink.contents) >= 40, what="40 messages")
        assert len(sink.sessions) < 40
        wait_for(instance.queue_is_empty, what="an empty queue")
        assert len(sink.contents) == 40


def test_lmtp(instance: Instance) -> None:
    path = Path(instance.spool, "private", "store")
    with SinkThread(SmtpSink(lmtp=True, path=str(path))) as sink:
        if os.geteuid() == 0:
            path.chmod(0o666)
        queue_id = _send(instance, b"x@mail.lmtp.test", b"y@mail.lmtp.test")
        pattern = rf"postfix/lmtp\[\d+\]: {queue_id}: to=<.*relay=mail\.test\.example\[private/store\].*sent"
        found = instance.wait_log(pattern, count=2)
        assert len(found) == 2
        assert len(sink.contents) == 1

"""ETRN has what waits for a domain delivered now."""

from __future__ import annotations

from support.instance import Client, running, wait_for
from support.ports import free_port
from support.smtp_sink import SmtpSink
from support.smtp_sink_thread import SinkThread


def test_etrn() -> None:
    port = free_port()
    settings = (
        f"relay_domains = relay.test\nrelay_transport = smtp:[127.0.0.1]:{port}\n"
        "minimal_backoff_time = 1000s\nmaximal_backoff_time = 2000s\nqueue_run_delay = 1000s\n"
    )
    with running(settings) as instance, Client(instance.port) as client:
        client.reply()
        client.ask(b"EHLO x")
        assert client.ask(b"ETRN other.test") == b"459 <other.test>: service unavailable\r\n"
        queue_id = client.send(b"a@test.example", [b"u@relay.test"], b"Subject: x\r\n\r\nx").split()[-1].decode()
        instance.wait_log(f"{queue_id}: to=<u@relay.test>, .* status=deferred")
        wait_for(lambda: list((instance.spool / "deferred").glob(f"*/{queue_id}")), what="the message in deferred/")
        with SinkThread(SmtpSink(port=port)) as sink:
            assert client.ask(b"ETRN relay.test") == b"250 Queuing started\r\n"
            instance.wait_log(f"{queue_id}: removed")
            assert sink.sessions
        client.ask(b"QUIT")

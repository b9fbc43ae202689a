"""A service that cannot start is named and throttled; the others go on, and it comes back when it can."""

from __future__ import annotations

import os
import signal

from support.instance import MASTER_CF, Client, running, wait_for


def send(port: int, recipient: bytes) -> bytes:
    with Client(port) as client:
        client.reply()
        client.ask(b"EHLO client.example")
        return client.send(b"a@test.example", [recipient], b"Subject: x\r\n\r\nbody")


def test_a_service_that_cannot_start() -> None:
    # A table of virtual(8) alone that is not there: its prepare() fails in every worker.
    master_cf = MASTER_CF.replace("- virtual\n", "- virtual\n  -o virtual_mailbox_maps=hash:$config_directory/missing\n")
    settings = "service_throttle_time = 2s\n"
    with running(settings, master_cf) as instance:
        assert send(instance.port, b"joe@box.test").startswith(b"250")
        instance.wait_log(r"status=(deferred|sent|bounced)")
        log = instance.log()
        assert "missing" in log, log
        assert send(instance.port, b"x@discard.test").startswith(b"250")
        instance.wait_log(r"to=<x@discard\.test>.*status=sent")
        assert instance.mailbox("joe") == []
        assert "status=bounced" not in instance.log()
        assert "Traceback" not in instance.log()
        instance.write("missing", "joe@box.test joe/\n")
        assert instance.command("postmap", f"hash:{instance.etc}/missing").returncode == 0
        wait_for(lambda: instance.mailbox("joe"), 20, "the message when the service is well again")


def test_a_worker_that_stops_answering_the_master_is_replaced() -> None:
    with running("service_throttle_time = 1s\n") as instance:
        assert send(instance.port, b"joe@box.test").startswith(b"250")
        wait_for(lambda: instance.mailbox("joe"), what="the first message")
        for _ in range(3):
            for pid in instance.pids("virtual"):
                os.kill(pid, signal.SIGKILL)
            before = len(instance.mailbox("joe"))
            assert send(instance.port, b"joe@box.test").startswith(b"250")
            wait_for(lambda before=before: len(instance.mailbox("joe")) > before, what="a new worker")  # type: ignore[misc]
        instance.wait_log(r"warning: process virtual pid \d+ killed by signal 9", count=3)


def test_workers_drain_at_reload() -> None:
    """A session that is open during a reload ends its message with the old worker; a new one gets the new banner."""
    with running() as instance, Client(instance.port) as client:
        client.reply()
        client.ask(b"EHLO client.example")
        assert client.ask(b"MAIL FROM:<a@test.example>").startswith(b"250")
        assert client.ask(b"RCPT TO:<joe@box.test>").startswith(b"250")
        old = set(instance.pids("smtpd"))
        main_cf = instance.etc / "main.cf"
        main_cf.write_text(main_cf.read_text() + "smtpd_banner = new banner\n")
        assert instance.command("postfix", "reload").returncode == 0

        def new_banner() -> bool:
            with Client(instance.port) as other:
                return other.reply() == b"220 new banner\r\n"

        wait_for(new_banner, what="the new banner")
        assert old <= set(instance.pids("smtpd")), "the old worker serves its client to the end"
        assert client.ask(b"DATA").startswith(b"354")
        client.socket.sendall(b"Subject: x\r\n\r\nbody\r\n.\r\n")
        assert client.reply().startswith(b"250")
        client.ask(b"QUIT")
        wait_for(lambda: instance.mailbox("joe"), what="the message")
        wait_for(lambda: not old & set(instance.pids("smtpd")), 10, "the old worker to end")

"""A rotated log file: after ``postfix reload`` everybody writes to the new one, the queue manager that stays included."""

from __future__ import annotations

from support.instance import Client, Instance, running, wait_for


def send(instance: Instance) -> str:
    with Client(instance.port) as client:
        client.reply()
        client.ask(b"EHLO x")
        reply = client.send(b"a@test.example", [b"x@discard.test"], b"Subject: x\r\n\r\n")
    assert reply.startswith(b"250 "), reply
    return reply.split()[-1].decode()


def test_rotation() -> None:
    with running() as instance:
        first = send(instance)
        instance.wait_log(f"{first}: removed")
        (qmgr,) = instance.pids("qmgr")
        before = set(instance.pids("smtpd"))
        old = instance.log_path.rename(instance.log_path.with_suffix(".1"))
        assert instance.command("postfix", "reload").returncode == 0
        instance.wait_log(r"master\[\d+\]: reload -- version")
        wait_for(lambda: not before & set(instance.pids("smtpd")), what="the old smtpd gone: it writes to the old file")
        second = wait_for(lambda: send(instance), what="a message after the reload")
        for what in ("client=", "message-id=", "from=<a@test.example>", "to=<x@discard.test>", "removed"):
            instance.wait_log(f"{second}: {what}")
        assert instance.pids("qmgr") == [qmgr]
        assert str(second) not in old.read_text()

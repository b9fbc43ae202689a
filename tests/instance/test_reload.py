"""`postfix reload` under load: nothing is lost or held up, the new settings work, the old workers go."""

from __future__ import annotations

import threading
import time

from support.instance import Client, running, wait_for

RELOADS = 10


class _Stream(threading.Thread):
    """One sender; ``kept``: all messages on one connection until the server ends it. Counts what was acknowledged."""

    def __init__(self, port: int, number: int, *, kept: bool) -> None:
        super().__init__()
        self.port, self.number, self.kept = port, number, kept
        self.ending = threading.Event()
        self.accepted = 0
        self.slowest_s = 0.0
        self.trouble: list[str] = []

    def run(self) -> None:
        try:
            while not self.ending.is_set():
                self._connection()
        except (OSError, AssertionError) as error:
            self.trouble.append(f"{type(error).__name__}: {error}")

    def _connection(self) -> None:
        started = time.monotonic()
        with Client(self.port) as client:
            greeting = client.reply()
            assert greeting.startswith(b"220 "), greeting
            client.ask(b"EHLO client.example")
            while not self.ending.is_set():
                body = b"Subject: %d-%d\r\n\r\nx" % (self.number, self.accepted)
                reply = client.send(b"a@test.example", [b"u%d@box.test" % self.number], body)
                if reply in (b"", b"421 4.3.2 mail.test.example Service not available\r\n"):
                    return  # the worker was replaced: come back
                assert reply.startswith(b"250 "), reply
                self.accepted += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - started)
                if not self.kept:
                    client.ask(b"QUIT")
                    return
                time.sleep(0.002)
                started = time.monotonic()


def test_ten_reloads_under_load() -> None:
    with running("smtpd_banner = zero ESMTP\nmax_idle = 100s\n") as instance:
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            client.send(b"a@test.example", [b"warm@box.test"], b"\r\nx")
        wait_for(lambda: instance.mailbox("warm"), what="the first message")
        before = set(instance.processes()) - set(instance.pids("qmgr")) - set(instance.pids("master"))
        streams = [_Stream(instance.port, number, kept=number % 2 == 0) for number in range(4)]
        for stream in streams:
            stream.start()
        for number in range(RELOADS):
            text = (instance.etc / "main.cf").read_text()
            at = text.index("smtpd_banner = ")
            end = text.index("\n", at)
            instance.write("main.cf", text[:at] + f"smtpd_banner = number{number} ESMTP" + text[end:])
            assert instance.command("postfix", "reload").returncode == 0

            def banner(number: int = number) -> bool:
                with Client(instance.port) as client:
                    return client.reply() == b"220 number%d ESMTP\r\n" % number

            wait_for(banner, 10, f"the setting of reload {number}")
        for stream in streams:
            stream.ending.set()
        for stream in streams:
            stream.join(30)
        assert [stream.trouble for stream in streams if stream.trouble] == []
        assert all(stream.accepted > 3 for stream in streams)
        assert max(stream.slowest_s for stream in streams) < 5.0
        for stream in streams:
            user = f"u{stream.number}"
            wait_for(lambda user=user, stream=stream: len(instance.mailbox(user)) >= stream.accepted, 30, f"all mail of {user}")  # type: ignore[misc]
            assert len(instance.mailbox(user)) == stream.accepted, "none twice"
        wait_for(instance.queue_is_empty, what="an empty queue")
        wait_for(lambda: not before & set(instance.processes()), 15, "the first workers gone")
        assert instance.unexpected() == []
        assert "warning:" not in instance.log(), [line for line in instance.log().splitlines() if "warning:" in line]


def test_a_wrong_configuration_is_not_taken() -> None:
    with running() as instance:
        good = (instance.etc / "main.cf").read_text()
        instance.write("main.cf", good + "smtpd_recipient_limit = many\n")
        result = instance.command("postfix", "reload")
        assert result.returncode == 1
        assert "parameter smtpd_recipient_limit: bad numerical value" in result.stderr
        instance.write("main.cf", good + "smtpd_relay_restrictions = permit\n")
        assert "specify at least one working instance" in instance.command("postfix", "reload").stderr
        with Client(instance.port) as client:
            assert client.reply().startswith(b"220 ")
            client.ask(b"EHLO x")
            assert client.send(b"a@test.example", [b"joe@box.test"], b"\r\nx").startswith(b"250 ")
        wait_for(lambda: instance.mailbox("joe"), what="mail with the old configuration")

"""A client that does not read its replies costs no memory and stops nobody."""

from __future__ import annotations

import socket
from pathlib import Path

from support.instance import Client, running, wait_for


def test_a_client_that_never_reads() -> None:
    limits = "\n".join(f"smtpd_{name}_limit = 100000000" for name in ("junk_command", "hard_error", "soft_error"))
    with running(limits) as instance:
        with Client(instance.port) as other:
            other.reply()
            other.ask(b"EHLO x")
            (worker,) = instance.pids("smtpd")
            hog = socket.create_connection(("127.0.0.1", instance.port))
            hog.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            hog.settimeout(1.0)
            sent = 0
            try:
                while sent < 60_000_000:
                    sent += hog.send(b"VRFY nobody@discard.test\r\n" * 1000)
            except TimeoutError:
                pass
            assert sent < 60_000_000, "the server reads on although its replies are not read"
            resident = int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096
            assert resident < 120_000_000
            assert other.send(b"a@test.example", [b"x@discard.test"], b"Subject: x\r\n\r\n").startswith(b"250")
            hog.settimeout(10.0)
            received = 0
            while received < 100_000:  # it reads after all: the conversation goes on
                received += len(hog.recv(65536))
            hog.close()
            other.ask(b"QUIT")
        wait_for(instance.queue_is_empty, what="an empty queue")

"""Connections that are kept, beside Postfix: not for mail that comes one by one, but while the queue has more for the destination."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support import peers
from support.ports import free_port

pytestmark = pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or "")

MAIN_CF = """\
myhostname = mail.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
relay_domains = gone.test
relayhost = [127.0.0.1]:{sink}
relay_transport = smtp
default_destination_concurrency_limit = 1
initial_destination_concurrency = 1
smtpd_relay_restrictions = reject_unauth_destination
smtp_connection_cache_time_limit = 30s
"""


class _Server:
    """Takes mail when ``open`` says so; knows its connections and when it has got a message or lost a client."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.accepted = self.messages = 0
        self.waits: list[float] = []  # seconds from a client's last message to its end
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        last = time.monotonic()
        with client, client.makefile("rb") as lines, suppress(OSError):
            client.sendall(b"220 sink ESMTP\r\n")
            while (line := lines.readline()) and not line.startswith(b"QUIT"):
                if line.startswith(b"DATA"):
                    client.sendall(b"354 go on\r\n")
                    while lines.readline() not in (b".\r\n", b""):
                        pass
                    self.open.wait(20)
                    last = time.monotonic()
                    self.messages += 1
                client.sendall(b"250 ok\r\n")
        self.waits.append(time.monotonic() - last)

    def close(self) -> None:
        self.open.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def place() -> Iterator[Path]:
    base = Path(tempfile.mkdtemp(prefix="kept-"))
    base.chmod(0o755)
    yield base
    shutil.rmtree(base, ignore_errors=True)


@pytest.mark.parametrize("name", peers.NAMES)
def test_demand(name: str, place: Path) -> None:
    port = free_port()
    server = _Server()
    service = f"127.0.0.1:{port} inet n - n - - smtpd\n"
    system = peers.Peer(name, place / name, MAIN_CF, service, values={"sink": server.port})
    system.start()

    def submit() -> None:
        talk = peers.Conversation(peers.connect("127.0.0.1", port))
        assert "queued" in talk.message("a@x.test", ["b@gone.test"], b"Subject: x\r\n\r\n")[-2]

    try:
        for number in range(1, 4):  # one by one, right behind one another
            submit()
            system.wait_log("to=<b@gone.test>.*status=sent", count=number)
        peers.wait_until(lambda: len(server.waits) == server.accepted, 10, f"{name}: clients stay: {server.waits}")
        assert max(server.waits) < 5
        one_by_one = server.accepted
        server.open.clear()
        for _ in range(6):
            submit()
        server.open.set()
        system.wait_log("to=<b@gone.test>.*status=sent", count=9)
        assert server.messages == 9
        assert server.accepted - one_by_one < 4
    finally:
        system.stop()
        server.close()

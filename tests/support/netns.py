"""A little network of hosts for tests: network namespaces on one bridge, DNS in the middle. Root and iproute2 only.

Each host is a namespace of its own with its addresses; ``ip netns exec`` gives it its own resolv.conf. Sockets of the test
itself are made inside a host by ``inside``. Everything goes away with the context manager; names have the pid in them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from support.dns_server import DnsServer

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000
_ETC = Path("/etc/netns")


def missing() -> str | None:
    """Why there can be no network namespaces here, or None."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    name = f"probe{os.getpid()}"
    try:
        if _ip("netns", "add", name, check=False).returncode:
            return "network namespaces are not allowed here"
        if _ip("-n", name, "link", "add", "br0", "type", "bridge", check=False).returncode:
            return "no bridges in network namespaces here"
    finally:
        _ip("netns", "del", name, check=False)
    return None


def _ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True, timeout=20)


@dataclass
class Network:
    """The hosts that ``network`` made. ``dns`` may be changed while it runs."""

    names: dict[str, str]
    dns: DnsServer
    threads: list[threading.Thread] = field(default_factory=list)

    def prefix(self, host: str) -> list[str]:
        """What starts a command on a host."""
        return ["ip", "netns", "exec", self.names[host]]

    def inside(self, host: str, work: Callable[[], T]) -> T:
        """Run ``work`` with the network of ``host``: the sockets it makes live there. Its exception comes back."""
        return _inside(self.names[host], work)

    def connect(self, host: str, address: str, port: int = 25, source: str = "", timeout_s: float = 20) -> socket.socket:
        """A TCP connection from ``host``."""
        where = (source, 0) if source else None
        return self.inside(host, lambda: socket.create_connection((address, port), timeout_s, where))

    def listen(self, host: str, address: str, port: int = 25) -> socket.socket:
        """A listening socket on ``host``."""
        return self.inside(host, lambda: socket.create_server((address, port)))


def _inside(namespace: str, work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(handle, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns {namespace}")
            finally:
                os.close(handle)
            results.append(work())
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run, name=f"in-{namespace}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


@contextlib.contextmanager
def network(hosts: Mapping[str, Sequence[str]], zones: dict[str, object], dns: Sequence[str]) -> Iterator[Network]:
    """Hosts by name with their addresses (``192.168.1.1/16``); a DNS server with ``zones`` at the addresses ``dns`` (one each
    range; a host asks the one in its first address's range)."""
    hub = f"n{os.getpid()}-hub"
    names = {host: f"n{os.getpid()}-{host}" for host in hosts}
    made: list[str] = []
    server = DnsServer(zones, address="0.0.0.0", port=53)
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, made)
        _ip("netns", "add", hub)
        made.append(hub)
        _ip("-n", hub, "link", "set", "lo", "up")
        _ip("-n", hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", hub, "link", "set", "br0", "up")
        for address in dns:
            _ip("-n", hub, "address", "add", address, "dev", "br0")
        for number, (host, addresses) in enumerate(hosts.items()):
            name = names[host]
            _ip("netns", "add", name)
            made.append(name)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", hub, "link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", hub, "link", "set", f"v{number}", "master", "br0", "up")
            for address in addresses:
                _ip("-n", name, "address", "add", address, "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            own = _ETC / name
            own.mkdir(parents=True, exist_ok=True)
            first = addresses[0].split(".")[0]
            servers = [entry.partition("/")[0] for entry in dns if entry.split(".")[0] == first]
            (own / "resolv.conf").write_text("".join(f"nameserver {entry}\n" for entry in servers))
            (own / "hosts").write_text("127.0.0.1 localhost\n")
        _inside(hub, server.__enter__)
        stack.callback(server.__exit__)
        yield Network(names, server)


def _remove(names: list[str]) -> None:
    for name in names:
        shutil.rmtree(_ETC / name, ignore_errors=True)
        _ip("netns", "del", name, check=False)
    with contextlib.suppress(OSError):
        _ETC.rmdir()


@dataclass
class Delivery:
    """One message that a sink got: its session's greeting, its envelope commands, its content (dots undone)."""

    helo: str
    envelope: list[str]
    content: bytes


class Sink:
    """An SMTP server that takes everything and remembers it; ``listener`` is a socket that listens already."""

    def __init__(self, listener: socket.socket, name: str) -> None:
        self._listener = listener
        self._name = name.encode()
        self.port: int = listener.getsockname()[1]
        self.deliveries: list[Delivery] = []
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name=f"sink-{name}", daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop and hang up."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in list(self._open):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(link)
            thread = threading.Thread(target=self._serve, args=(link,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, link: socket.socket) -> None:
        with link, contextlib.suppress(OSError), link.makefile("rwb") as stream:

            def say(text: bytes) -> None:
                stream.write(text + b"\r\n")
                stream.flush()

            say(b"220 " + self._name + b" ESMTP")
            helo = ""
            envelope: list[str] = []
            while line := stream.readline():
                text = line.decode("latin-1").rstrip("\r\n")
                verb = text[:4].upper()
                if verb in ("EHLO", "HELO"):
                    helo = text
                    say(b"250-" + self._name + b"\r\n250-PIPELINING\r\n250-SIZE 10000000\r\n250-8BITMIME\r\n250 DSN")
                elif verb in ("MAIL", "RCPT"):
                    envelope.append(text)
                    say(b"250 2.0.0 Ok")
                elif verb == "DATA":
                    say(b"354 go on")
                    content = []
                    while (line := stream.readline()) not in (b".\r\n", b""):
                        content.append(line[1:] if line.startswith(b".") else line)
                    self.deliveries.append(Delivery(helo, envelope, b"".join(content)))
                    envelope = []
                    say(b"250 2.0.0 Ok: taken")
                elif verb == "RSET":
                    envelope = []
                    say(b"250 2.0.0 Ok")
                elif verb == "QUIT":
                    say(b"221 2.0.0 Bye")
                    break
                else:
                    say(b"502 5.5.1 what?")
        self._open.discard(link)

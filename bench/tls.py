"""TLS figures: full and resumed handshakes a second, messages over kept connections, a full handshake for every message.

Usage: PYTHONPATH=tests python -m bench.tls [--rounds N] [--seconds S] [--clients N]; root, with Debian's Postfix. The clients are
processes of the standard library's ssl (openssl s_time knows no STARTTLS); they take their share of the processor, which makes every
ratio look smaller than it is. Both systems run in alternation with the same main.cf.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import BinaryIO

from support import peers
from support.certificates import Authority
from support.instance import free_port
from support.tls_client import client_context

MAIN_CF = """\
myhostname = mail.bench.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
alias_maps =
alias_database =
default_transport = discard:
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
in_flow_delay = 0
default_process_limit = 50
disable_dns_lookups = yes
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = may
"""
MASTER_CF = "127.0.0.1:{port} inet n - n - - smtpd\ntlsmgr unix - - n 1000? 1 tlsmgr\n"
CONTENT = b"Subject: x\r\n\r\n" + (b"y" * 70 + b"\r\n") * 56 + b".\r\n"
MODES = ("full", "resumed", "kept", "each")


def _reply(stream: BinaryIO) -> bytes:
    while line := stream.readline():
        if line[3:4] != b"-":
            return line
    raise EOFError


def _connect(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[ssl.SSLSocket, BinaryIO]:
    link = socket.create_connection(("127.0.0.1", port), 20)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream = link.makefile("rb")
    _reply(stream)
    for line in (b"EHLO x\r\n", b"STARTTLS\r\n"):
        link.sendall(line)
        _reply(stream)
    secured = context.wrap_socket(link, session=session)
    secured_stream = secured.makefile("rb")
    secured.sendall(b"EHLO x\r\n")
    _reply(secured_stream)
    return secured, secured_stream


def _send(link: ssl.SSLSocket, stream: BinaryIO) -> None:
    link.sendall(b"MAIL FROM:<a@bench.test>\r\nRCPT TO:<b@bench.test>\r\nDATA\r\n")
    for _ in range(3):
        _reply(stream)
    link.sendall(CONTENT)
    if not _reply(stream).startswith(b"250"):
        raise EOFError


def _work(port: int, mode: str, seconds: float) -> int:
    """What one client gets done."""
    context = client_context()
    session, done, end = None, 0, time.monotonic() + seconds
    link, stream = _connect(port, context, None)
    if mode == "resumed":
        session = link.session
    while time.monotonic() < end:
        if mode != "kept":
            link.sendall(b"QUIT\r\n")
            stream.close()
            link.close()
            link, stream = _connect(port, context, session)
            if mode == "resumed" and not link.session_reused:
                raise EOFError
        if mode in ("kept", "each"):
            _send(link, stream)
        done += 1
    return done


def rate(port: int, mode: str, seconds: float, clients: int) -> float:
    """Handshakes or messages a second, all clients together."""
    pipes = []
    for _ in range(clients):
        read, write = os.pipe()
        if os.fork() == 0:
            done = 0
            try:
                done = _work(port, mode, seconds)
            except (OSError, EOFError) as error:
                sys.stderr.write(f"{mode}: {error!r}\n")
            os.write(write, str(done).encode())
            os._exit(0)
        os.close(write)
        pipes.append(read)
    total = 0
    for read in pipes:
        total += int(os.read(read, 20) or b"0")
        os.close(read)
        os.wait()
    return total / seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=6)
    options = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="estafeta-bench-tls-"))
    top.chmod(0o755)
    pair = Authority(top / "ca").issue("mail.bench.test", "mail.bench.test", rsa_key=True)
    ports = {name: free_port() for name in peers.NAMES}
    values = {"certificate": pair.certificate, "key": pair.key}
    systems = [peers.Peer(name, top / name, MAIN_CF, MASTER_CF, values={**values, "port": ports[name]}) for name in peers.NAMES]
    try:
        for system in systems:
            system.start()
        for mode in MODES:
            found: dict[str, list[float]] = {name: [] for name in peers.NAMES}
            for _ in range(options.rounds):
                for name in peers.NAMES:
                    found[name].append(rate(ports[name], mode, options.seconds, options.clients))
            theirs, ours = (statistics.median(found[name]) for name in peers.NAMES)
            print(f"{mode:8} postfix {theirs:8.0f}/s  estafeta {ours:8.0f}/s  ratio {ours / max(theirs, 0.1):.2f}", flush=True)
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    main()

"""A small authoritative DNS responder for tests, on UDP and TCP of one address.

Zones are a dict: {"example.com": {"MX": ["10 mx.example.com"], "A": ["127.0.0.2"]}}. Record texts are as in a
zone file, relative names are absolute. Special values for a name instead of the dict: "DROP" (no answer) or a
response code like "SERVFAIL". Unknown names are NXDOMAIN; "*.zone" keys match any name below. A CNAME is followed
inside the zones.
Usable as a context manager (a thread) and as a script for network namespaces:
``python dns_server.py --address 127.0.0.1 --port 53 zones.json``.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

Zones = Mapping[str, Any]


class DnsServer:
    """Answers from ``zones`` (which may be changed while it runs). ``queries`` lists (name, type) as they came."""

    def __init__(
        self,
        zones: Zones,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        delay_s: float = 0.0,
        truncate: bool = False,
        authentic: bool = False,
        ttl_s: int = 60,
        negative_ttl_s: int = 60,
    ) -> None:
        self.zones = zones
        self.address = address
        self.port = port
        self.delay_s = delay_s
        self.truncate = truncate
        self.authentic = authentic
        self.ttl_s = ttl_s
        self.negative_ttl_s = negative_ttl_s
        self.queries: list[tuple[str, str]] = []
        self._stop_reader, self._stop_writer = socket.socketpair()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> DnsServer:
        self.bind()
        self._thread = threading.Thread(target=self.serve, name="dns-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_writer.send(b"x")
        if self._thread is not None:
            self._thread.join(10)
        for sock in (self._udp, self._tcp, self._stop_reader, self._stop_writer):
            sock.close()

    def bind(self) -> None:
        """Open both sockets on one port (a free one when the port is 0)."""
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        for attempt in range(20):
            self._tcp = socket.socket(family, socket.SOCK_STREAM)
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._udp = socket.socket(family, socket.SOCK_DGRAM)
            try:
                self._tcp.bind((self.address, self.port))
                self._udp.bind((self.address, self._tcp.getsockname()[1]))
                break
            except OSError:
                self._tcp.close()
                self._udp.close()
                if self.port or attempt == 19:
                    raise
        self._tcp.listen(16)
        self.port = self._tcp.getsockname()[1]

    def serve(self) -> None:
        """Answer until told to stop."""
        while True:
            readable, _, _ = select.select([self._udp, self._tcp, self._stop_reader], [], [])
            if self._stop_reader in readable:
                return
            if self._udp in readable:
                wire, peer = self._udp.recvfrom(65535)
                answer = self.answer(wire, tcp=False)
                if answer is not None:
                    self._udp.sendto(answer, peer)
            if self._tcp in readable:
                connection, _ = self._tcp.accept()
                with connection:
                    connection.settimeout(5)
                    try:
                        (size,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
                        answer = self.answer(connection.recv(size, socket.MSG_WAITALL), tcp=True)
                        if answer is not None:
                            connection.sendall(struct.pack("!H", len(answer)) + answer)
                    except (OSError, struct.error):
                        pass

    def answer(self, wire: bytes, *, tcp: bool) -> bytes | None:
        """Return the wire form of the answer, None for no answer."""
        if self.delay_s:
            time.sleep(self.delay_s)
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            return None
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        rtype = dns.rdatatype.to_text(question.rdtype)
        self.queries.append((name, rtype))
        response = dns.message.make_response(query, recursion_available=True)
        response.flags &= ~dns.flags.AD
        if self.authentic and query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        if self.truncate and not tcp:
            response.flags |= dns.flags.TC
            return response.to_wire()
        for _ in range(8):
            entry = self._entry(name)
            if entry == "DROP":
                return None
            if isinstance(entry, str):
                response.set_rcode(dns.rcode.from_text(entry))
                return response.to_wire()
            if entry is None:
                response.set_rcode(dns.rcode.NXDOMAIN)
                break
            owner = dns.name.from_text(name)
            if rtype in entry:
                response.answer.append(
                    dns.rrset.from_rdata_list(owner, self.ttl_s, [_rdata(rtype, text) for text in entry[rtype]])
                )
                break
            if "CNAME" not in entry:
                break
            target = _rdata("CNAME", entry["CNAME"][0])
            response.answer.append(dns.rrset.from_rdata_list(owner, self.ttl_s, [target]))
            name = target.target.to_text(omit_final_dot=True).lower()  # type: ignore[attr-defined]
        if not response.answer or response.answer[-1].rdtype == dns.rdatatype.CNAME:
            soa = f"ns.invalid. root.invalid. 1 60 60 60 {self.negative_ttl_s}"
            response.authority.append(
                dns.rrset.from_rdata_list(dns.name.from_text("."), self.negative_ttl_s, [_rdata("SOA", soa)])
            )
        return response.to_wire()

    def _entry(self, name: str) -> Any:
        entry = self.zones.get(name)
        parent = name
        while entry is None and "." in parent:
            parent = parent.partition(".")[2]
            entry = self.zones.get(f"*.{parent}")
        if entry is None and any(known.endswith(f".{name}") for known in self.zones):
            return {}
        return entry


def _rdata(rtype: str, text: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, rtype, text, origin=dns.name.root, relativize=False)


def main() -> None:
    """Serve a zone file until killed; print one line when ready."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("zonefile")
    options = parser.parse_args()
    zones = json.loads(Path(options.zonefile).read_text(encoding="utf-8"))
    server = DnsServer(zones, address=options.address, port=options.port, delay_s=options.delay)
    server.bind()
    print(f"ready {server.address} {server.port}", flush=True)
    server.serve()


if __name__ == "__main__":
    sys.exit(main())

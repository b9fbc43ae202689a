"""One question to the configured nameservers: UDP, TCP after truncation, retries.

Source: RFC 1035 section 4.2, RFC 5452 (random port and id, question check), resolv.conf(5) for times and
order. Invariants: every attempt has its own connected socket, thus its own random port and only datagrams of
the asked server; a datagram that does not answer the question is passed over, not believed; no socket
outlives ``ask``. Servers that answer SERVFAIL, NOTIMP or REFUSED are left for the next one, as glibc does.
"""

from __future__ import annotations

import asyncio
import secrets
import socket

from estafeta.dns.resolvconf import ResolvConf
from estafeta.dns.wire import Rcode, Response, WireError, encode_query, parse_response

_PASSED_OVER = (Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED)
_MAX_DATAGRAM = 65535


class NoAnswer(Exception):
    """No server gave a usable answer in the allowed tries."""


async def ask(conf: ResolvConf, port: int, name: str, rtype: int, *, dnssec: bool, first: int = 0) -> Response:
    """Return the answer (rcode NOERROR, NXDOMAIN or another final one) of the first server that has one.

    ``first`` is the index of the server to start with (rotation). Raises NoAnswer, or WireError if ``name`` is
    no legal name.
    """
    edns = conf.edns0 or dnssec
    encode_query(0, name, rtype)
    servers = conf.nameservers
    order = servers[first % len(servers) :] + servers[: first % len(servers)]
    for attempt in range(conf.attempts):
        timeout_s: float = conf.timeout_s << attempt
        if attempt and len(order) > 1:
            timeout_s = max(1.0, timeout_s / len(order))
        for server in order:
            try:
                async with asyncio.timeout(timeout_s):
                    response = await _ask_server(
                        server, port, name, rtype, edns=edns, dnssec=dnssec, use_tcp=conf.use_tcp
                    )
                    if response.rcode == Rcode.FORMERR and edns:
                        # An old server that does not know EDNS.
                        response = await _ask_server(
                            server, port, name, rtype, edns=False, dnssec=False, use_tcp=conf.use_tcp
                        )
            except (TimeoutError, OSError, WireError):
                continue
            if response.rcode not in _PASSED_OVER:
                return response
    raise NoAnswer


async def _ask_server(
    server: str, port: int, name: str, rtype: int, *, edns: bool, dnssec: bool, use_tcp: bool
) -> Response:
    query_id = secrets.randbits(16)
    query = encode_query(query_id, name, rtype, edns=edns, dnssec=dnssec)
    if not use_tcp:
        response = await _by_udp(server, port, query, query_id, name, rtype)
        if not response.truncated:
            return response
    return await _by_tcp(server, port, query, query_id, name, rtype)


def _answers(response: Response, query_id: int, name: str, rtype: int) -> bool:
    if response.query_id != query_id:
        return False
    if not response.question_name and response.rcode != Rcode.NOERROR and name not in ("", "."):
        return True
    asked = name.lower().removesuffix(".")
    return response.question_type == rtype and response.question_name.lower() == asked


def _family(server: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in server else socket.AF_INET


async def _by_udp(server: str, port: int, query: bytes, query_id: int, name: str, rtype: int) -> Response:
    loop = asyncio.get_running_loop()
    with socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((server, port))
        sock.send(query)
        answer: asyncio.Future[Response] = loop.create_future()

        def readable() -> None:
            try:
                datagram = sock.recv(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if not answer.done():
                    answer.set_exception(error)
                return
            try:
                response = parse_response(datagram)
            except WireError:
                return
            if not answer.done() and _answers(response, query_id, name, rtype):
                answer.set_result(response)

        # uvloop closes over the socket object, asyncio over its number: both take the number.
        descriptor = sock.fileno()
        loop.add_reader(descriptor, readable)
        try:
            return await answer
        finally:
            loop.remove_reader(descriptor)


async def _by_tcp(server: str, port: int, query: bytes, query_id: int, name: str, rtype: int) -> Response:
    loop = asyncio.get_running_loop()
    with socket.socket(_family(server), socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (server, port))
        await loop.sock_sendall(sock, len(query).to_bytes(2, "big") + query)
        size = int.from_bytes(await _exactly(loop, sock, 2), "big")
        response = parse_response(await _exactly(loop, sock, size))
        if not _answers(response, query_id, name, rtype):
            raise WireError("answer to another question")
        return response


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = await loop.sock_recv(sock, size - len(received))
        if not piece:
            raise ConnectionResetError("server closed the connection")
        received += piece
    return bytes(received)

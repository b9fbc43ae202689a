"""The public socket of pickup: triggers, and whole submissions of local users.

Protocol (spool.maildrop.hand_to_pickup is the other end): ``SUBMIT octets LF`` and that many octets of an encoded submission;
one line comes back. Anything else is a trigger. The peer's uid comes from the kernel (SO_PEERCRED); what the submission
says of its uid and time of arrival is replaced. Invariant: ``OK`` is said only when the file is safe in ``maildrop/``.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from estafeta.daemons.pickup.service import Pickup

TIMEOUT_S = 60.0
_FIRST = b"SUBMIT "
_CREDENTIALS = struct.Struct("3i")


def peer_uid(link: socket.socket) -> int:
    """The user at the other end of a unix socket; raises OSError."""
    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(raw)[1]
    return uid


class SubmissionLink(asyncio.Protocol):
    """One connection to the socket."""

    def __init__(self, service: Pickup, uid: int) -> None:
        self._service = service
        self._uid = uid
        self._transport: Any = None
        self._parts: list[bytes] = []
        self._head = b""
        self._wanted = -1  # octets, once known
        self._received = 0
        self._timer: asyncio.TimerHandle | None = None
        self._trigger = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._timer = self._service.context.loop.call_later(TIMEOUT_S, transport.abort)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self._trigger:
            return
        if self._wanted < 0:
            data = self._head + data
            if not data.startswith(_FIRST[: len(data)]):
                self._trigger = True
                self._service.on_trigger(data)
                return
            line, newline, rest = data.partition(b"\n")
            if not newline:
                self._head = data
                if len(data) > 100:
                    self.answer("NO", "bad request")
                return
            digits = line[len(_FIRST) :]
            if not digits.isdigit() or len(digits) > 15:
                self.answer("NO", "bad request")
                return
            self._wanted = int(digits)
            limit = self._service.largest_submission
            if limit and self._wanted > limit:
                self.answer("NO", "message file too big")
                return
            data = rest
        self._parts.append(data)
        self._received += len(data)
        if self._received >= self._wanted:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._trigger = True  # nothing more is read
            if self._received > self._wanted:
                self.answer("NO", "bad request")
            else:
                self._service.run_soon(self._service.accept(self, self._uid, whole))

    def answer(self, verdict: str, text: str) -> None:
        """Say how it went and end the connection."""
        self._trigger = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(f"{verdict} {text}\n".encode("utf-8", "surrogateescape"))
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._service.context.client_closed()

"""The lower half of a session: transport, time limit, TLS. The upper half (session.py) speaks SMTP.

Source: man 8 smtp; RFC 3207. Invariants: one timer, set anew when it rings too early; after ``_begin_tls`` nothing leaves in clear;
a handshake ends in one place, well (``machine.tls_started``) or badly (``_handshake_over``).
"""

from __future__ import annotations

import asyncio
from typing import Any

from estafeta.daemons.smtp.secure import Handshake, Secured, Security, begin
from estafeta.daemons.smtp.settings import Settings
from estafeta.daemons.smtp.trouble import Peer, Trouble
from estafeta.protocol.smtp_client import ClientOptions, SmtpClient, SmtpReply
from estafeta.system.log import Log
from estafeta.tls.pipe import TlsError


class Link(asyncio.Protocol):
    """See the module."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        options: ClientOptions,
        peer: Peer,
        destination: str,
        *,
        log: Log,
        security: Security,
        number: int,
    ) -> None:
        self.loop = loop
        self.settings = settings
        self.peer = peer
        self.destination = destination
        self.machine = SmtpClient(options)
        self.security = security
        self.number = number
        self.transport: Any = None
        self.opened: asyncio.Future[Trouble | None] = loop.create_future()
        self.closed = False
        self._log = log
        self._handshake: Handshake | None = None
        self._secured: Secured | None = None
        self._paused = False
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # -- what the upper half does ----------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Handle what the machine has found, send what it has to say."""
        raise NotImplementedError

    def _watch(self) -> None:
        """Set the time limit of what is waited for."""
        raise NotImplementedError

    def _timed_out(self) -> None:
        """The time limit has passed."""
        raise NotImplementedError

    def _go_on(self) -> None:
        """The transport takes more."""
        raise NotImplementedError

    def _drop(self, *, flush: bool = False) -> None:
        """Close."""
        raise NotImplementedError

    def _opened(self, trouble: Trouble | None) -> None:
        """The session is ready, or of no use."""
        raise NotImplementedError

    def _ready(self) -> None:
        """Hello is done, in clear or not."""
        raise NotImplementedError

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._watch()
        if self.security.wrapper:
            self._begin_tls()

    def data_received(self, data: bytes) -> None:
        if self._secured is not None:
            data = self._decipher(self._secured, data)
            if not data:
                return
        self.machine.receive_data(data)
        self._pump()

    def eof_received(self) -> None:
        if self._handshake is not None and not self._handshake.done:
            self._handshake_over(self._handshake.failed("lost connection", self._info, self._log.warning))
            return
        self.machine.receive_data(b"")
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self.eof_received()
        self._drop()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._go_on()

    # -- time ----------------------------------------------------------------------------------------------------------

    def _limit(self, seconds: float) -> None:
        """The conversation must go on within ``seconds`` (0: no limit). A timer that rings too early is set again."""
        now = self.loop.time()
        self._deadline = now + seconds if seconds else 0.0
        if not seconds:
            return
        if self._timer is None or self._timer_at > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = self._deadline
            self._timer = self.loop.call_at(self._deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if not self._deadline or self.closed:
            return
        if self.loop.time() < self._deadline - 0.001:
            self._timer_at = self._deadline
            self._timer = self.loop.call_at(self._deadline, self._ring)
            return
        if self._handshake is not None and not self._handshake.done:
            self._handshake_over(self._handshake.failed("Connection timed out", self._info, self._log.warning))
        else:
            self._timed_out()

    # -- TLS -----------------------------------------------------------------------------------------------------------

    def _info(self, text: str) -> None:
        self._log.line(text, self.number)

    def _in_clear(self) -> bool:
        """After the first hello: True if the session goes on as it is, False if TLS has begun or the session is over."""
        security = self.security
        offered = "starttls" in self.machine.features
        if security.tls is None or not security.policy.wanted:
            if offered and security.note_offer:
                self._info(f"Host offered STARTTLS: [{self.peer.host}]")
            return True
        if offered:
            self.machine.start_tls()
            return False
        if not security.policy.mandatory:
            return True
        text = f"TLS is required, but was not offered by host {self.peer.name}"
        self._opened(Trouble("4.7.4", text, throttle=True, relay=self.peer.relay, mta=self.peer.host))
        return False

    def _on_starttls(self, reply: SmtpReply) -> None:
        if reply.positive:
            self._begin_tls()
        elif self.security.policy.mandatory:
            text = f"TLS is required, but host {self.peer.name} refused to start TLS: {reply.text}"
            status = "4" + reply.status[1:]
            self._opened(Trouble(status, text, throttle=True, relay=self.peer.relay, mta=self.peer.host))
        else:
            self._ready()

    def _begin_tls(self) -> None:
        started = begin(self.security, self.peer, self.destination, self.transport, self._log.warning)
        if isinstance(started, Trouble):
            self._handshake_over(started)
            return
        self._handshake = started
        self.transport = self._secured = started.transport
        started.feed(b"", self._info, self._log.warning)
        self._watch()

    def _decipher(self, secured: Secured, data: bytes) -> bytes:
        """Plain text of the server; "" if there is none (yet)."""
        pipe = secured.pipe
        handshake = self._handshake
        if handshake is not None and not handshake.done:
            step = handshake.feed(data, self._info, self._log.warning)
            if isinstance(step, Trouble):
                self._handshake_over(step)
            if step is not True:
                return b""
            if not self.security.wrapper:
                self.machine.tls_started()
                self.machine.hello()
                self._pump()
            else:
                self._watch()
        else:
            pipe.feed(data)
        try:
            plain = pipe.read()
        except TlsError:
            self.eof_received()
            return b""
        secured.send_records()
        if pipe.at_end and not self.closed:
            if plain:
                self.machine.receive_data(plain)
            self.eof_received()
            return b""
        return plain

    def _handshake_over(self, trouble: Trouble) -> None:
        """It failed, or the server is not the one that is wanted: nothing more is said."""
        self._handshake = None
        if not self.opened.done():
            self.opened.set_result(trouble)
        self.machine.close()
        self._drop()

    @property
    def is_verified(self) -> bool:
        """Whether TLS is on and the server's certificate is that of who it should be."""
        return self._handshake is not None and self._handshake.verified

    @property
    def is_encrypted(self) -> bool:
        """Whether TLS is on."""
        return self._secured is not None

"""The socket of an SMTP conversation: bytes in, replies out, in clear or through TLS, and when not to read.

Owns the non-blocking socket and its watchers. Replies of one turn go out together; while they cannot, or are held back, nothing
new is handled; while a command waits, input is kept up to a high-water mark and then left in the kernel.
Invariants: nothing is sent or read after ``shut``; ``blocked`` is true from a write that did not fit until it is out; from
``shake_hands`` on nothing leaves in clear and nothing that came in clear is taken.
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from estafeta.tls.pipe import TlsError, TlsPipe

_READ = 65536


class Wire:
    """Base of a session; the session implements ``received``, ``lost`` and ``resume``."""

    __slots__ = ("_out", "_paused", "_pipe", "_sealed", "_shaken", "_sock", "blocked", "closed", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self.loop = loop
        self._sock = sock
        self._out: list[bytes] = []
        self._paused = False
        self._pipe: TlsPipe | None = None
        self._sealed = b""  # records that are still to be sent
        self._shaken: asyncio.Future[str] | None = None
        self.blocked = False
        self.closed = False

    # -- what the session does ----------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes came from the client."""
        raise NotImplementedError

    def lost(self) -> None:
        """The client is gone."""
        raise NotImplementedError

    def resume(self) -> None:
        """What was in the way of output is not any more."""
        raise NotImplementedError

    # -- reading ------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Begin to read."""
        self.loop.add_reader(self._sock.fileno(), self._readable)

    def shut(self) -> None:
        """Close the socket."""
        self.closed = True
        if self._pipe is not None:
            self._say_goodbye(self._pipe)
        self.loop.remove_reader(self._sock.fileno())
        if self.blocked:
            self.loop.remove_writer(self._sock.fileno())
        self._sock.close()

    def _readable(self) -> None:
        try:
            data = self._sock.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if self._pipe is not None:
            self._decipher(self._pipe, data)
        elif data:
            self.received(data)
        else:
            self.lost()

    @property
    def paused(self) -> bool:
        """Whether reading is stopped."""
        return self._paused

    def pause_reading(self) -> None:
        """Leave what comes in the kernel."""
        if not self._paused:
            self._paused = True
            self.loop.remove_reader(self._sock.fileno())

    def resume_reading(self) -> None:
        """Read again."""
        if self._paused:
            self._paused = False
            self.loop.add_reader(self._sock.fileno(), self._readable)

    # -- writing ------------------------------------------------------------------------------------------------------

    def reply(self, line: bytes) -> None:
        """Queue one reply (without line end)."""
        self._out.append(line + b"\r\n")

    def reply_now(self, line: bytes) -> None:
        """Send a last reply."""
        self.reply(line)
        self.flush()

    def flush(self) -> None:
        """Send the queued replies."""
        if not self._out or self.closed or self.blocked:
            return
        data = b"".join(self._out) if len(self._out) > 1 else self._out[0]
        self._out.clear()
        if self._pipe is not None:
            self._encipher(self._pipe, data)
            return
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.lost()
            return
        if sent < len(data):
            self._out.append(data[sent:])
            self.blocked = True
            self.loop.add_writer(self._sock.fileno(), self._writable)

    def _writable(self) -> None:
        self.loop.remove_writer(self._sock.fileno())
        if self._sealed:
            self.blocked = False
            self._send_sealed()
            if self.blocked or self.closed:
                return
        self._release()

    def hold_back(self, delay_s: float) -> None:
        """Hold the replies (and so the client) back for a while."""
        if not self.blocked:
            self.blocked = True
            self.loop.call_later(delay_s, self._release)

    def _release(self) -> None:
        self.blocked = False
        self.flush()
        self.resume()

    # -- TLS ----------------------------------------------------------------------------------------------------------

    async def shake_hands(self, context: ssl.SSLContext) -> str:
        """Begin TLS; "" when it is established, else why not ("-1: ..." for what OpenSSL did not like)."""
        if self.closed or self._out:
            return "lost connection"
        self._pipe = TlsPipe(context, server_side=True)
        self._shaken = self.loop.create_future()
        try:
            return await self._shaken
        finally:
            self._shaken = None

    @property
    def shaking_hands(self) -> bool:
        """Whether the handshake is under way."""
        return self._shaken is not None

    def give_up_handshake(self, reason: str) -> None:
        """End the handshake without success."""
        if self._shaken is not None and not self._shaken.done():
            self._shaken.set_result(reason)

    @property
    def tls_link(self) -> ssl.SSLObject | None:
        """The connection, to ask it what was agreed on."""
        return self._pipe.link if self._pipe is not None else None

    def _decipher(self, pipe: TlsPipe, data: bytes) -> None:
        pipe.feed(data)
        if not pipe.ready:
            if not data:
                self.give_up_handshake("lost connection")
                return
            try:
                done = pipe.shake_hands()
            except TlsError as error:
                self._seal(pipe.outgoing())
                self.give_up_handshake(f"-1: {error.reason}")
                return
            if not done:
                self._seal(pipe.outgoing())
                return
            if pipe.link.version() == "TLSv1.3":
                # That is only a session ticket: it can wait for the first reply and needs no packet of its own.
                self._sealed += pipe.outgoing()
            else:
                self._seal(pipe.outgoing())
            if self._shaken is not None and not self._shaken.done():
                self._shaken.set_result("")
        try:
            plain = pipe.read()
        except TlsError:
            self._lost_secured()
            return
        if plain:
            self.received(plain)
        if pipe.at_end or not data:
            self._lost_secured()

    def _lost_secured(self) -> None:
        if not self.closed:
            self.lost()

    def _encipher(self, pipe: TlsPipe, data: bytes) -> None:
        if not pipe.ready:
            return  # a last reply of a session that ends in the middle of the handshake
        try:
            self._seal(pipe.write(data))
        except TlsError:
            self._lost_secured()

    def _seal(self, records: bytes) -> None:
        self._sealed += records
        if self._sealed and not self.blocked and not self.closed:
            self._send_sealed()

    def _send_sealed(self) -> None:
        data = self._sealed
        try:
            sent = self._sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._sealed = b""
            self._lost_secured()
            return
        self._sealed = data[sent:]
        if self._sealed:
            self.blocked = True
            self.loop.add_writer(self._sock.fileno(), self._writable)

    def _say_goodbye(self, pipe: TlsPipe) -> None:
        self.give_up_handshake("lost connection")
        if not self.blocked:
            try:
                self._sock.send(self._sealed + pipe.close())
            except OSError:
                pass

"""One TLS connection as a pipe without a socket: what came in, what must go out, plain text on the other side.

Source: RFC 8446, RFC 5246 through ssl.MemoryBIO. Invariants: no plain text is taken or given before ``ready``; after an error or
the peer's end nothing more is; what ``outgoing`` gives must be sent in order.
"""

from __future__ import annotations

import _ssl
import ssl

_SSL_LIBRARY = 20
_RECORDS = 262144


class TlsError(Exception):
    """The peer does not speak TLS as we understand it. ``reason``: OpenSSL's text for the log."""

    def __init__(self, error: ssl.SSLError) -> None:
        super().__init__(str(error))
        self.reason = _words(error)


def _words(error: ssl.SSLError) -> str:
    """The error as OpenSSL prints it: ``error:0A00010B:SSL routines::wrong version number``."""
    library, reason = error.library or "SSL", error.reason or "UNKNOWN"
    codes: dict[tuple[int, int], str] = getattr(_ssl, "err_codes_to_names", {})
    number = next(((a << 23) | b for (a, b), name in codes.items() if name == reason and a == _SSL_LIBRARY), 0)
    return f"error:{number:08X}:{library} routines::{reason.replace('_', ' ').lower()}"


class TlsPipe:
    """See the module."""

    __slots__ = ("_incoming", "_outgoing", "at_end", "link", "ready")

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.link = context.wrap_bio(self._incoming, self._outgoing, server_side, server_name, session)
        self.ready = False
        self.at_end = False

    def feed(self, data: bytes) -> None:
        """Bytes came from the peer; none is the end of the stream."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def shake_hands(self) -> bool:
        """Go on with the handshake; true when it is done. Raises TlsError (what ``outgoing`` has is still to be sent)."""
        try:
            self.link.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            raise TlsError(error) from None
        self.ready = True
        return True

    def outgoing(self) -> bytes:
        """What has to be sent now."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def read(self) -> bytes:
        """All plain text that is there; ``at_end`` is true when the peer has closed. Raises TlsError."""
        read = self.link.read
        first = b""
        more: list[bytes] = []
        try:
            first = read(_RECORDS)
            while first:
                data = read(_RECORDS)
                if not data:
                    self.at_end = True
                    break
                more.append(data)
            else:
                self.at_end = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            self.at_end = True
        except ssl.SSLError as error:
            if not first:
                raise TlsError(error) from None
            self.at_end = True
        return b"".join((first, *more)) if more else first

    def write(self, data: bytes) -> bytes:
        """The records that carry ``data``. Raises TlsError."""
        write = self.link.write
        try:
            sent = write(data)
            while sent < len(data):
                sent += write(data[sent:])
        except ssl.SSLError as error:
            raise TlsError(error) from None
        return self._outgoing.read()

    def close(self) -> bytes:
        """The records that tell the peer of the end; nothing is waited for."""
        if not self.ready:
            return b""
        try:
            self.link.unwrap()
        except (ssl.SSLError, OSError, ValueError):
            pass
        return self.outgoing()

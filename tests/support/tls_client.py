"""An SMTP client that can STARTTLS: support.instance.Client with a context."""

from __future__ import annotations

import ssl
import warnings

from support.certificates import Pair
from support.instance import Client


def client_context(version: ssl.TLSVersion | None = None, pair: Pair | None = None) -> ssl.SSLContext:
    """Takes any server; ``version`` is the only one that is spoken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if version is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
    if pair is not None:
        context.load_cert_chain(pair.certificate, pair.key)
    return context


class TlsClient(Client):
    """See the module."""

    secured: ssl.SSLSocket

    def secure(self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """Shake hands now (after 220, or at once in wrapper mode)."""
        self._file.close()
        self.secured = (context or client_context()).wrap_socket(self.socket, session=session)
        self.socket = self.secured
        self._file = self.socket.makefile("rb")
        return self.secured

    def start_tls(self, context: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        """Greeting, EHLO, STARTTLS, handshake, EHLO."""
        assert self.reply().startswith(b"220"), "no greeting"
        assert b"250-STARTTLS\r\n" in self.ask(b"EHLO client.test")
        assert self.ask(b"STARTTLS") == b"220 2.0.0 Ready to start TLS\r\n"
        secured = self.secure(context, session)
        assert b"STARTTLS" not in self.ask(b"EHLO client.test")
        return secured

    def close(self) -> None:
        super().close()


def message(client: Client, recipient: bytes = b"user@box.test") -> None:
    """Send one small message; it must be taken."""
    reply = client.send(b"a@test.example", [recipient], b"Subject: x\r\n\r\nx")
    assert reply.startswith(b"250 2.0.0 Ok: queued as "), reply

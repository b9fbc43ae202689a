"""A finished handshake in words: for the log, the Received header and the restrictions.

Source: TLS_README; the forms as observed from smtpd(8) and smtp(8) 3.7.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from estafeta.tls.certificate import Certificate, read_certificate
from estafeta.tls.library import library

_NAMES = {"TLSv1.0": "TLSv1"}


@dataclass(frozen=True, slots=True)
class Summary:
    """One connection. ``verify_result`` 0: the peer's chain is good; -1: nobody knows, or there is no certificate."""

    protocol: str
    cipher: str
    bits: int
    cipher_bits: int
    key_exchange: str
    server_signature: str
    client_signature: str
    certificate: Certificate | None
    verify_result: int
    resumed: bool

    @property
    def trusted(self) -> bool:
        """Whether the chain leads to an authority that we have."""
        return self.certificate is not None and self.verify_result == 0

    @property
    def status(self) -> str:
        """The first word of the log line."""
        if self.certificate is None:
            return "Anonymous"
        return "Trusted" if self.trusted else "Untrusted"

    @property
    def lines(self) -> list[str]:
        """The description, as the Received header folds it."""
        found = [f"{self.protocol} with cipher {self.cipher} ({self.bits}/{self.cipher_bits} bits)"]
        second = " ".join(word for word in (self.key_exchange, self.server_signature) if word)
        return found + [line for line in (second, self.client_signature) if line]

    @property
    def text(self) -> str:
        """The description in one line."""
        return " ".join(self.lines)


def summarize(link: ssl.SSLObject, *, server_side: bool, digest: str) -> Summary:
    """Describe a connection whose handshake is done."""
    cipher, _, bits = link.cipher() or ("(NONE)", "", 0)
    protocol = link.version() or "unknown"
    exchange = own = peer = ""
    if protocol == "TLSv1.3":
        shake = library().handshake(link)
        exchange = f"key-exchange {shake.key_exchange}" if shake.key_exchange else ""
        server, client = (shake.own_signature, shake.own_digest), (shake.peer_signature, shake.peer_digest)
        if not server_side:
            server, client = client, server
        own, peer = _signature("server", *server), _signature("client", *client)
    der = link.getpeercert(True)
    return Summary(
        _NAMES.get(protocol, protocol),
        cipher,
        bits,
        bits,
        exchange,
        own,
        peer,
        read_certificate(der, digest) if der else None,
        library().verify_result(link) if der else -1,
        bool(link.session_reused),
    )


def _signature(side: str, signature: str, digest: str) -> str:
    if not signature:
        return ""
    return f"{side}-signature {signature}" + (f" {side}-digest {digest}" if digest else "")

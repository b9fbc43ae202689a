"""What a peer's certificate says: names, issuer, fingerprints; and whether its names are those that are wanted.

Source: RFC 6125 section 6.4, postconf(5) smtp_tls_verify_cert_match, smtpd_tls_fingerprint_digest. A certificate that cannot be
read has no names and matches nothing. Invariant: control characters and other non-printables never leave this module in names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID

DIGESTS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")


@dataclass(frozen=True, slots=True)
class Certificate:
    """``dns_names`` are lower case; fingerprints are upper-case hexadecimal with colons."""

    subject: str = ""
    issuer: str = ""
    dns_names: tuple[str, ...] = ()
    fingerprint: str = ""
    pubkey_fingerprint: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the host: those of the extension, or else the common name."""
        return self.dns_names or ((self.subject.lower(),) if self.subject else ())


@lru_cache(maxsize=512)
def read_certificate(der: bytes, digest: str) -> Certificate:
    """Read what is of interest; ``digest`` is one of DIGESTS."""
    fingerprint = colons(hashlib.new(digest, der, usedforsecurity=False).hexdigest())
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        subject = _common_name(certificate.subject)
        issuer = _common_name(certificate.issuer) or _organization(certificate.issuer)
        names = _dns_names(certificate)
    except Exception:  # noqa: BLE001 - the library raises of all sorts for what a peer may send
        return Certificate(fingerprint=fingerprint)
    return Certificate(
        subject, issuer, names, fingerprint, colons(hashlib.new(digest, key, usedforsecurity=False).hexdigest())
    )


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return _clean(found[0].value) if found else ""


def _organization(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return _clean(found[0].value) if found else ""


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    except x509.ExtensionNotFound:
        return ()
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    found = extension.value.get_values_for_type(x509.DNSName)
    return tuple(name.lower() for name in found if name and all("!" <= c <= "~" for c in name))


def _clean(text: str | bytes) -> str:
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    return "".join(c if c.isprintable() and c not in "()\\" else "?" for c in text)


def colons(digits: str) -> str:
    """``AB:CD:...``"""
    digits = digits.upper()
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


def matched_name(wanted: Iterable[str], names: Iterable[str], *, many_labels: bool = True) -> str | None:
    """The first name of a certificate that is wanted. ``.example.com`` wants every subdomain.

    A leading ``*.`` in a certificate stands for one label, or for any number (``many_labels``:
    tls_wildcard_matches_multiple_labels).
    """
    names = [name.rstrip(".") for name in names]
    for pattern in wanted:
        pattern = pattern.lower().rstrip(".")
        for name in names:
            if pattern.startswith("."):
                if len(name) > len(pattern) and name.endswith(pattern):
                    return name
            elif name == pattern or _wildcard(name, pattern, many_labels):
                return name
    return None


def _wildcard(name: str, host: str, many_labels: bool) -> bool:
    if not name.startswith("*.") or name.count(".") < 2 or not host.endswith(name[1:]):
        return False
    labels = host[: -len(name) + 1]
    return bool(labels) and (many_labels or "." not in labels)

"""A certification authority for one test: certificates with names, keys that only their owner can read."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Pair:
    """The files of one certificate, and its sha256 fingerprints as Postfix writes them."""

    certificate: Path
    key: Path
    fingerprint: str
    pubkey_fingerprint: str


def _colons(data: bytes) -> str:
    digits = hashlib.sha256(data).hexdigest().upper()
    return ":".join(digits[i : i + 2] for i in range(0, len(digits), 2))


class Authority:
    """See the module. ``certificate`` is the file to trust; ``directory`` must be readable for the services."""

    def __init__(self, directory: Path, name: str = "Test CA") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._name, self._key, self._name, self._key, ca=True)
        self.certificate = directory / f"{name.replace(' ', '-')}.pem"
        self.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, *names: str, rsa_key: bool = False, self_signed: bool = False, file: str = "") -> Pair:
        """A certificate for common name ``name`` and the DNS ``names``. Same ``file``: replaces it."""
        key: Key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, issuer_key = (subject, key) if self_signed else (self._name, self._key)
        certificate = self._sign(subject, key, issuer, issuer_key, names=names)
        file = file or name.replace("*", "_").replace(" ", "-")
        pair_certificate, pair_key = self.directory / f"{file}.pem", self.directory / f"{file}.key"
        pair_key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        pair_key.chmod(0o600)
        pair_certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return Pair(pair_certificate, pair_key, _colons(certificate.public_bytes(Encoding.DER)), _colons(public))

    @staticmethod
    def _sign(
        subject: x509.Name, key: Key, issuer: x509.Name, issuer_key: Key, *, names: tuple[str, ...] = (), ca: bool = False
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())

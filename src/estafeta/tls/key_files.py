"""Certificates and keys from files into a context.

Source: postconf(5) smtpd_tls_cert_file, smtpd_tls_chain_files, smtpd_tls_CAfile. Called with the master's privileges, before the
jail: a key may be readable for root alone. Invariant: an error names the file and, where there is one, the remedy.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterable

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class TlsSetupError(Exception):
    """A certificate, key or word of main.cf that TLS cannot work with; the text is for the log."""


def load_pair(context: ssl.SSLContext, kind: str, certificate: str, key: str) -> None:
    """A certificate chain (PEM, the server's own first) and its key. ``kind``: RSA, DSA or ECDSA, for the message."""
    readable(certificate, f"cannot get {kind} certificate from file")
    key = key or certificate
    readable(key, f"cannot get {kind} private key from file")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise TlsSetupError(f'cannot get {kind} private key from file "{key}": {_reason(error, certificate)}') from None


def load_chains(context: ssl.SSLContext, paths: Iterable[str]) -> None:
    """smtpd_tls_chain_files: each key is followed by its certificates, in one file or over several."""
    groups: list[tuple[str, list[bytes]]] = []
    for path in paths:
        readable(path, "cannot open chain file")
        with open(path, "rb") as stream:
            blocks = list(_BLOCK.finditer(stream.read()))
        if not blocks:
            raise TlsSetupError(f"chain file {path}: no PEM block in it")
        for block in blocks:
            if block[1].endswith(b"PRIVATE KEY"):
                groups.append((path, [block[0]]))
            elif not groups:
                raise TlsSetupError(f"chain file {path}: a certificate before its key (each key comes first, then its chain)")
            elif block[1] == b"CERTIFICATE":
                groups[-1][1].append(block[0])
    for path, parts in groups:
        descriptor = os.memfd_create("chain")
        try:
            os.write(descriptor, b"\n".join(parts) + b"\n")
            context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise TlsSetupError(f"chain file {path}: {_reason(error, path)}") from None
        finally:
            os.close(descriptor)


def load_authorities(context: ssl.SSLContext, ca_file: str, ca_path: str, *, default: bool) -> None:
    """The authorities whose certificates are trusted; ``default`` adds those of the system."""
    if ca_file:
        readable(ca_file, "cannot load Certification Authority data, CAfile")
    if ca_path and not os.path.isdir(ca_path):
        raise TlsSetupError(f'cannot load Certification Authority data, CApath "{ca_path}": no such directory')
    try:
        if ca_file:
            context.load_verify_locations(cafile=ca_file)
        if ca_path:
            _load_directory(context, ca_path)
        if default:
            context.load_default_certs()
    except (ssl.SSLError, OSError) as error:
        reason = _reason(error, ca_file)
        raise TlsSetupError(f'cannot load Certification Authority data, CAfile "{ca_file}": {reason}') from None


def _load_directory(context: ssl.SSLContext, path: str) -> None:
    """Read the hashed files now: a worker in its jail will not find the directory."""
    for name in sorted(os.listdir(path)):
        if re.fullmatch(r"[0-9a-f]{8}\.\d+", name):
            try:
                context.load_verify_locations(cafile=os.path.join(path, name))
            except (ssl.SSLError, OSError):
                continue  # one bad file is not the others' fault


def readable(path: str, what: str) -> None:
    """Raise TlsSetupError if the file cannot be read."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise TlsSetupError(f'{what} "{path}": {error.strerror}') from None


def _no_password() -> str:
    raise ValueError("it is protected by a pass phrase, which a mail server cannot type")


def _reason(error: Exception, certificate: str) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f'it does not belong to the certificate in "{certificate}"'
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return str(error)

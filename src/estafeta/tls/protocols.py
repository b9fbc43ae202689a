"""Which protocol versions and ciphers: the words of main.cf as pure values.

Source: postconf(5) smtpd_tls_protocols, smtpd_tls_ciphers, smtpd_tls_exclude_ciphers, tls_high_cipherlist ..., TLS_README.
Invariant: a range is never empty; a word that is not understood is a ValueError with the word in it.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass

_VERSIONS = {"SSLV2": 0x0002, "SSLV3": 0x0300, "TLSV1": 0x0301, "TLSV1.1": 0x0302, "TLSV1.2": 0x0303, "TLSV1.3": 0x0304}
_ORDER = (0x0301, 0x0302, 0x0303, 0x0304)
_OPTIONS = {
    0x0301: ssl.OP_NO_TLSv1, 0x0302: ssl.OP_NO_TLSv1_1, 0x0303: ssl.OP_NO_TLSv1_2, 0x0304: ssl.OP_NO_TLSv1_3,
}  # fmt: skip
_WORD = re.compile(r"(>=|<=|!?)\s*(\S+)\Z")


@dataclass(frozen=True, slots=True)
class Protocols:
    """The versions that may be spoken, as OpenSSL numbers them."""

    allowed: tuple[int, ...]

    def apply(self, context: ssl.SSLContext) -> None:
        """Restrict ``context``."""
        context.minimum_version = ssl.TLSVersion(self.allowed[0])
        context.maximum_version = ssl.TLSVersion(self.allowed[-1])
        for version in _ORDER:
            if self.allowed[0] < version < self.allowed[-1] and version not in self.allowed:
                context.options |= _OPTIONS[version]


def parse_protocols(text: str) -> Protocols:
    """``>=TLSv1.2``, ``!SSLv3, !TLSv1`` or ``TLSv1.2 TLSv1.3``. Raises ValueError."""
    low, high = 0, 0xFFFF
    excluded: set[int] = set()
    included: set[int] = set()
    for word in re.split(r"[\s,:]+", re.sub(r"(>=|<=|!)\s+", r"\1", text.strip())):
        if not word:
            continue
        match = _WORD.match(word)
        if match is None:
            raise ValueError(f"invalid protocol {word!r}")
        version = _version(match[2])
        if match[1] == ">=":
            low = version
        elif match[1] == "<=":
            high = version
        elif match[1] == "!":
            excluded.add(version)
        else:
            included.add(version)
    allowed = tuple(
        version
        for version in _ORDER
        if low <= version <= high and version not in excluded and (not included or version in included)
    )
    if not allowed:
        raise ValueError(f"no protocol is left by {text!r}")
    return Protocols(allowed)


def _version(word: str) -> int:
    found = _VERSIONS.get(word.upper())
    if found is not None:
        return found
    try:
        number = int(word, 16) if word.lower().startswith("0x") else -1
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError(f"unknown protocol {word!r}")
    return number


def cipher_list(base: str, exclude: list[str]) -> str:
    """OpenSSL's cipher list without the words of ``exclude``. An old server or client may be met: security level 0."""
    parts = [base, *(f"!{word}" for word in exclude if word)]
    return ":".join(parts) + ":@SECLEVEL=0"


def exclusions(*texts: str) -> list[str]:
    """The words of smtpd_tls_exclude_ciphers and its kin."""
    return [word for text in texts for word in re.split(r"[\s,:]+", text) if word]

"""The settings that clients and servers share: cipher lists, groups, OpenSSL's options.

Source: postconf(5) tls_high_cipherlist ..., tls_eecdh_auto_curves, tls_ssl_options, tls_disable_workarounds.
"""

from __future__ import annotations

import ssl
import warnings

from estafeta.config.config import Config
from estafeta.tls.key_files import TlsSetupError
from estafeta.tls.library import library
from estafeta.tls.protocols import cipher_list, parse_protocols

_SSL_OPTIONS = {
    "ENABLE_MIDDLEBOX_COMPAT": 1 << 20,
    "LEGACY_SERVER_CONNECT": 1 << 2,
    "NO_TICKET": 1 << 14,
    "NO_COMPRESSION": 1 << 17,
    "NO_RENEGOTIATION": 1 << 30,
    "NO_SESSION_RESUMPTION_ON_RENEGOTIATION": 1 << 16,
    "PRIORITIZE_CHACHA": 1 << 21,
    "NO_ENCRYPT_THEN_MAC": 1 << 19,
    "ALLOW_NO_DHE_KEX": 1 << 10,
}
_WORKAROUNDS = {
    "CRYPTOPRO_TLSEXT_BUG": 1 << 31,
    "DONT_INSERT_EMPTY_FRAGMENTS": 1 << 11,
    "LEGACY_SERVER_CONNECT": 1 << 2,
    "TLSEXT_PADDING": 1 << 4,
    "SAFARI_ECDHE_ECDSA_BUG": 1 << 6,
}
_LISTS = {
    "high": "tls_high_cipherlist",
    "medium": "tls_medium_cipherlist",
    "low": "tls_low_cipherlist",
    "export": "tls_export_cipherlist",
    "null": "tls_null_cipherlist",
}
_OLD_WORKAROUNDS = frozenset(
    (
        "MICROSOFT_BIG_SSLV3_BUFFER", "MICROSOFT_SESS_ID_BUG", "MSIE_SSLV2_RSA_PADDING", "CVE-2005-2969",
        "NETSCAPE_CHALLENGE_BUG", "NETSCAPE_REUSE_CIPHER_CHANGE_BUG", "CVE-2010-4180", "SSLEAY_080_CLIENT_DH_BUG",
        "SSLREF2_REUSE_CERT_TYPE_BUG", "TLS_BLOCK_PADDING_BUG", "TLS_D5_BUG", "TLS_ROLLBACK_BUG",
    )
)  # fmt: skip


def option_bits(text: str, names: dict[str, int], parameter: str, *, ignored: frozenset[str] = frozenset()) -> int:
    """The bits of a list of names, or of a hexadecimal number. Raises TlsSetupError."""
    bits = 0
    for word in text.replace(",", " ").split():
        upper = word.upper()
        if upper in names:
            bits |= names[upper]
        elif upper.startswith("0X"):
            try:
                bits |= int(upper, 16)
            except ValueError:
                raise TlsSetupError(f"{parameter}: invalid hexadecimal number {word}") from None
        elif upper not in ignored:
            raise TlsSetupError(f"{parameter}: unknown option {word}")
    return bits


def set_ciphers(context: ssl.SSLContext, config: Config, grade: str, exclude: list[str], parameter: str) -> str:
    """Restrict the ciphers to a grade; the list as the log shows it. Raises TlsSetupError."""
    grade = grade.strip().lower()
    if grade not in _LISTS:
        raise TlsSetupError(f'{parameter}: invalid cipher grade "{grade}" (specify high, medium, low, export or null)')
    base = config.get(_LISTS[grade])
    try:
        context.set_ciphers(cipher_list(base, exclude))
    except ssl.SSLError:
        raise TlsSetupError(f'{parameter}: no cipher is left of "{cipher_list(base, exclude)}"') from None
    return ":".join((base, *(f"!{word}" for word in exclude)))


def set_protocols(context: ssl.SSLContext, text: str, parameter: str) -> None:
    """Restrict the protocol versions. Raises TlsSetupError."""
    try:
        protocols = parse_protocols(text)
    except ValueError as error:
        raise TlsSetupError(f"{parameter}: {error}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TLS 1.0 is what main.cf allows
        protocols.apply(context)


def set_common_options(context: ssl.SSLContext, config: Config, *, curves: str) -> None:
    """OpenSSL's options and the groups for key exchange. Raises TlsSetupError."""
    parameter = "tls_ssl_options"
    enabled = option_bits(config.get(parameter), _SSL_OPTIONS, parameter)
    parameter = "tls_disable_workarounds"
    disabled = option_bits(config.get(parameter), _WORKAROUNDS, parameter, ignored=_OLD_WORKAROUNDS)
    options = (int(context.options) & ~(disabled & int(ssl.OP_ALL))) | enabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.options = ssl.Options(options)
    if not library().set_groups(context, curves.replace(",", " ").replace(":", " ").split()) and library().usable:
        raise TlsSetupError(f'unknown curve in "{curves}"')


def curves_for(config: Config, grade: str) -> str:
    """The groups of smtpd_tls_eecdh_grade. Raises TlsSetupError."""
    grade = grade.strip().lower()
    if grade == "auto":
        return config.get("tls_eecdh_auto_curves")
    if grade == "strong":
        return config.get("tls_eecdh_strong_curve")
    if grade == "ultra":
        return config.get("tls_eecdh_ultra_curve")
    if grade == "none":
        return ""
    raise TlsSetupError(f'smtpd_tls_eecdh_grade: unknown grade "{grade}" (specify auto, strong, ultra or none)')

"""The functions of OpenSSL that the standard library does not show, called through ctypes on the very same libssl.

Source: SSL_CTX_set_verify(3), SSL_get_verify_result(3), SSL_CTX_set1_groups(3), SSL_CTX_set_tlsext_ticket_key_cb(3) ...
The C pointers are found inside Python's own objects (measured on CPython 3.10 to 3.13), so each is checked before its first use:
a context must tell the same options through both doors. Invariant: where a check fails nothing is called, ``usable`` is false,
and the callers do without (self-signed client certificates, groups, shared ticket keys).
"""

from __future__ import annotations

import ctypes
import ssl
from dataclasses import dataclass
from functools import cache
from typing import Any

_VERIFY_PEER = 1
_VERIFY_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)

_SET_SESSION_CACHE_MODE = 44
_SET_TICKET_KEYS = 59
_SET_GROUPS_LIST = 92
_GET_PEER_SIGNATURE_NID = 108
_GET_PEER_TMP_KEY = 109
_SET_DH_AUTO = 118
_SET_MIN_PROTOCOL = 123
_SET_MAX_PROTOCOL = 124
_GET_SIGNATURE_NID = 132
_NO_PROTOCOL = {0x0302: 1 << 28, 0x0303: 1 << 27}
TICKET_KEY_BYTES = 80

_EVP_RSA, _EVP_DH, _EVP_EC, _EVP_X25519, _EVP_X448, _EVP_ED25519, _EVP_ED448 = 6, 28, 408, 1034, 1035, 1087, 1088
_RSA_PSS = 912


def _go_on(ok: int, store: int) -> int:
    """Go on whatever the chain is worth; SSL_get_verify_result tells it afterwards."""
    return 1


_take_any = _VERIFY_CALLBACK(_go_on)


@dataclass(frozen=True, slots=True)
class Handshake:
    """What the log and Received header say beyond protocol and cipher; empty where it does not apply."""

    key_exchange: str = ""
    own_signature: str = ""
    own_digest: str = ""
    peer_signature: str = ""
    peer_digest: str = ""


class Library:
    """See the module. Made once by ``library``."""

    def __init__(self) -> None:
        self._lib: Any = None
        try:
            import _ssl

            self._lib = _prototypes(ctypes.CDLL(_ssl.__file__))
            probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.usable = self._lib.SSL_CTX_get_options(self._pointer(probe)) == int(probe.options) & 0xFFFFFFFFFFFFFFFF
        except (ImportError, OSError, AttributeError):
            self.usable = False

    @staticmethod
    def _pointer(context: ssl.SSLContext) -> int:
        address = id(context) + object.__basicsize__
        return ctypes.c_void_p.from_address(address).value or 0

    def _connection(self, link: ssl.SSLObject) -> int:
        """The SSL* of a connection, 0 if it cannot be found for sure."""
        if not self.usable:
            return 0
        inner: Any = link._sslobj  # type: ignore[attr-defined]
        pointer = ctypes.c_void_p.from_address(id(inner) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)).value or 0
        if not pointer or self._lib.SSL_get_SSL_CTX(pointer) != self._pointer(link.context):
            return 0
        return pointer

    # -- contexts -----------------------------------------------------------------------------------------------------

    def ask_for_certificate(self, context: ssl.SSLContext) -> None:
        """Ask clients for a certificate and take any, or none."""
        if self.usable:
            self._lib.SSL_CTX_set_verify(self._pointer(context), _VERIFY_PEER, _take_any)

    def set_verify_depth(self, context: ssl.SSLContext, depth: int) -> None:
        """The longest chain that is followed."""
        if self.usable:
            self._lib.SSL_CTX_set_verify_depth(self._pointer(context), depth)

    def set_session_lifetime(self, context: ssl.SSLContext, seconds: int) -> None:
        """How long a session may be resumed."""
        if self.usable:
            self._lib.SSL_CTX_set_timeout(self._pointer(context), seconds)

    def no_server_cache(self, context: ssl.SSLContext) -> None:
        """Keep no sessions in memory: tickets do."""
        if self.usable:
            self._lib.SSL_CTX_ctrl(self._pointer(context), _SET_SESSION_CACHE_MODE, 0, None)

    def set_ticket_keys(self, context: ssl.SSLContext, keys: bytes) -> bool:
        """Let every process with the same ``keys`` (80 bytes) resume what one of them began."""
        if not self.usable or len(keys) != TICKET_KEY_BYTES:
            return False
        return bool(self._lib.SSL_CTX_ctrl(self._pointer(context), _SET_TICKET_KEYS, len(keys), keys) == 1)

    def set_groups(self, context: ssl.SSLContext, names: list[str]) -> bool:
        """The key exchange groups in order; false if OpenSSL does not take the list."""
        if not self.usable or not names:
            return not names
        return bool(self._lib.SSL_CTX_ctrl(self._pointer(context), _SET_GROUPS_LIST, 0, ":".join(names).encode()) == 1)

    def set_automatic_dh(self, context: ssl.SSLContext) -> None:
        """Diffie-Hellman parameters of OpenSSL's own."""
        if self.usable:
            self._lib.SSL_CTX_ctrl(self._pointer(context), _SET_DH_AUTO, 1, None)

    def announce_authorities(self, context: ssl.SSLContext, path: str) -> None:
        """Tell clients the names of the authorities in a file whose certificates are asked for."""
        if self.usable:
            names = self._lib.SSL_load_client_CA_file(path.encode())
            if names:
                self._lib.SSL_CTX_set_client_CA_list(self._pointer(context), names)

    # -- connections --------------------------------------------------------------------------------------------------

    def restrict_protocols(self, link: ssl.SSLObject, allowed: tuple[int, ...]) -> None:
        """Allow these versions (as OpenSSL numbers them, in order) on one connection, before its handshake."""
        pointer = self._connection(link)
        if pointer:
            self._lib.SSL_ctrl(pointer, _SET_MIN_PROTOCOL, allowed[0], None)
            self._lib.SSL_ctrl(pointer, _SET_MAX_PROTOCOL, allowed[-1], None)
            missing = {number: bit for number, bit in _NO_PROTOCOL.items() if allowed[0] < number < allowed[-1]}
            self._lib.SSL_set_options(pointer, sum(bit for number, bit in missing.items() if number not in allowed))

    def restrict_ciphers(self, link: ssl.SSLObject, ciphers: str) -> bool:
        """Allow these ciphers on one connection; false if none is left."""
        pointer = self._connection(link)
        return bool(pointer and self._lib.SSL_set_cipher_list(pointer, ciphers.encode("ascii", "replace")) == 1)

    def verify_result(self, link: ssl.SSLObject) -> int:
        """0 if the peer's chain leads to an authority of the context; -1 if that is not known."""
        pointer = self._connection(link)
        return int(self._lib.SSL_get_verify_result(pointer)) if pointer else -1

    def verify_text(self, result: int) -> str:
        """OpenSSL's words for a result."""
        if not self.usable or result < 0:
            return "unknown"
        text: bytes = self._lib.X509_verify_cert_error_string(result)
        return text.decode("ascii", "replace")

    def handshake(self, link: ssl.SSLObject) -> Handshake:
        """Key exchange and signatures of a TLS 1.3 connection. One that was resumed knows the kind of the keys alone."""
        pointer = self._connection(link)
        if not pointer:
            return Handshake()
        lib = self._lib
        server = bool(link.server_side)
        own = self._signature(pointer, lib.SSL_get_signature_type_nid, lib.SSL_get_certificate, _GET_SIGNATURE_NID, server)
        peer = self._signature(
            pointer, lib.SSL_get_peer_signature_type_nid, lib.SSL_get0_peer_certificate, _GET_PEER_SIGNATURE_NID, True
        )
        return Handshake(self._key_exchange(pointer), *own, *peer)

    def _key_exchange(self, pointer: int) -> str:
        lib = self._lib
        key = ctypes.c_void_p()
        if lib.SSL_ctrl(pointer, _GET_PEER_TMP_KEY, 0, ctypes.byref(key)) != 1 or not key.value:
            return ""
        try:
            kind = lib.EVP_PKEY_get_id(key)
            if kind == _EVP_EC:
                return f"ECDHE ({self._group(key)})"
            if kind == _EVP_DH:
                return f"DHE ({lib.EVP_PKEY_get_bits(key)} bits)"
            return {_EVP_X25519: "X25519", _EVP_X448: "X448"}.get(kind, "")
        finally:
            lib.EVP_PKEY_free(key)

    def _group(self, key: Any) -> str:
        name = ctypes.create_string_buffer(64)
        length = ctypes.c_size_t()
        if self._lib.EVP_PKEY_get_group_name(key, name, 64, ctypes.byref(length)) != 1:
            return "unknown"
        return _GROUP_NAMES.get(name.value.decode("ascii", "replace"), name.value.decode("ascii", "replace"))

    def _signature(self, pointer: int, type_of: Any, certificate_of: Any, digest_control: int, always: bool) -> tuple[str, str]:
        lib = self._lib
        nid = ctypes.c_int()
        signed = type_of(pointer, ctypes.byref(nid)) == 1 and nid.value
        certificate = certificate_of(pointer)
        if not certificate or not (signed or always):
            return "", ""
        key = lib.X509_get0_pubkey(certificate)
        kind = lib.EVP_PKEY_get_id(key)
        if kind in (_EVP_RSA, _RSA_PSS):
            name = f"RSA-PSS ({lib.EVP_PKEY_get_bits(key)} bits)"
        elif kind == _EVP_EC:
            name = f"ECDSA ({self._group(key)})"
        else:
            name = {_EVP_ED25519: "Ed25519", _EVP_ED448: "Ed448"}.get(kind, "unknown")
        digest = ctypes.c_int()
        if lib.SSL_ctrl(pointer, digest_control, 0, ctypes.byref(digest)) == 1 and digest.value:
            return name, lib.OBJ_nid2sn(digest.value).decode("ascii", "replace")
        return name, ""


_GROUP_NAMES = {"P-256": "prime256v1", "P-384": "secp384r1", "P-521": "secp521r1"}


def _prototypes(lib: Any) -> Any:
    """Declare what is called; raises AttributeError for a libssl that lacks one."""
    pointer, number = ctypes.c_void_p, ctypes.c_int
    for name, result, arguments in (
        ("SSL_CTX_get_options", ctypes.c_uint64, [pointer]),
        ("SSL_CTX_ctrl", ctypes.c_long, [pointer, number, ctypes.c_long, pointer]),
        ("SSL_ctrl", ctypes.c_long, [pointer, number, ctypes.c_long, pointer]),
        ("SSL_CTX_set_verify", None, [pointer, number, _VERIFY_CALLBACK]),
        ("SSL_CTX_set_verify_depth", None, [pointer, number]),
        ("SSL_CTX_set_timeout", ctypes.c_long, [pointer, ctypes.c_long]),
        ("SSL_load_client_CA_file", pointer, [ctypes.c_char_p]),
        ("SSL_CTX_set_client_CA_list", None, [pointer, pointer]),
        ("SSL_set_options", ctypes.c_uint64, [pointer, ctypes.c_uint64]),
        ("SSL_set_cipher_list", number, [pointer, ctypes.c_char_p]),
        ("SSL_get_SSL_CTX", pointer, [pointer]),
        ("SSL_get_verify_result", ctypes.c_long, [pointer]),
        ("X509_verify_cert_error_string", ctypes.c_char_p, [ctypes.c_long]),
        ("SSL_get_signature_type_nid", number, [pointer, pointer]),
        ("SSL_get_peer_signature_type_nid", number, [pointer, pointer]),
        ("SSL_get_certificate", pointer, [pointer]),
        ("SSL_get0_peer_certificate", pointer, [pointer]),
        ("X509_get0_pubkey", pointer, [pointer]),
        ("EVP_PKEY_get_id", number, [pointer]),
        ("EVP_PKEY_get_bits", number, [pointer]),
        ("EVP_PKEY_free", None, [pointer]),
        ("EVP_PKEY_get_group_name", number, [pointer, pointer, ctypes.c_size_t, pointer]),
        ("OBJ_nid2sn", ctypes.c_char_p, [number]),
    ):
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib


@cache
def library() -> Library:
    """The one of this process."""
    return Library()

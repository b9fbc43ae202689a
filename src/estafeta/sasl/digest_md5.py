"""DIGEST-MD5, authentication only (no integrity or privacy layer). RFC 2831, historic by RFC 6331."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from estafeta.sasl.vocabulary import (
    AUTHENTICATION,
    PROTOCOL,
    UNPROVEN,
    Account,
    Challenge,
    ClientMachine,
    Credentials,
    SaslFailed,
    ServerMachine,
    ServerNames,
    WantAccount,
)

_MAX_BYTES = 4096  # RFC 2831 section 2.1.2: a longer response is refused
_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ITEM = re.compile(rb'[ \t\r\n,]*(' + _NAME + rb')[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))[ \t\r\n]*(?:,|\Z)', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_MANY = (b"realm",)


def parse_directives(text: bytes) -> dict[bytes, bytes]:
    """``name=value`` items; of several realms the first. Raises SaslFailed."""
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(text):
        match = _ITEM.match(text, position)
        if match is None:
            if text[position:].strip(b" \t\r\n,"):
                raise SaslFailed(AUTHENTICATION, "Parse error")
            break
        name = match[1].lower()
        value = _ESCAPED.sub(rb"\1", match[2]) if match[2] is not None else match[3]
        if name in found and name not in _MANY:
            raise SaslFailed(AUTHENTICATION, f"duplicate {name.decode()}")
        found.setdefault(name, value)
        position = match.end()
    return found


def quoted(value: bytes) -> bytes:
    """A quoted string."""
    return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _in_hash(value: bytes) -> bytes:
    """Section 2.1.2.1: UTF-8 that fits into ISO 8859-1 is hashed in that."""
    if value.isascii():
        return value
    try:
        return value.decode().encode("latin-1")
    except UnicodeError:
        return value


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def _hex(data: bytes) -> bytes:
    return _md5(data).hex().encode()


def response_value(
    user: bytes, realm: bytes, password: bytes, *, nonce: bytes, cnonce: bytes, count: bytes, uri: bytes, authorize: bytes = b"",
    method: bytes = b"AUTHENTICATE",
) -> bytes:  # fmt: skip
    """Section 2.1.2.1; ``method`` empty makes rspauth (2.1.3)."""
    secret = _md5(b":".join((_in_hash(user), _in_hash(realm), _in_hash(password))))
    a1 = b":".join((secret, nonce, cnonce, authorize)) if authorize else b":".join((secret, nonce, cnonce))
    return _hex(b":".join((_hex(a1), nonce, count, cnonce, b"auth", _hex(method + b":" + uri))))


def digest_server(names: ServerNames, initial: bytes | None, nonce: bytes | None = None) -> ServerMachine:
    """There is no re-authentication: an initial response is passed over. ``nonce`` is for tests."""
    if nonce is None:
        nonce = secrets.token_urlsafe(32).encode()
    realm = (names.realm or names.host).encode()
    response = yield Challenge(
        b"nonce=" + quoted(nonce) + b",realm=" + quoted(realm) + b',qop="auth",charset=utf-8,algorithm=md5-sess'
    )
    if not response:
        raise SaslFailed(AUTHENTICATION, "input expected in DIGEST-MD5, step 2")
    if len(response) > _MAX_BYTES:
        raise SaslFailed(PROTOCOL, "DIGEST-MD5 response is too long")
    said = parse_directives(response)
    missing = [name for name in (b"username", b"nonce", b"cnonce", b"nc", b"digest-uri", b"response") if not said.get(name)]
    if missing:
        raise SaslFailed(AUTHENTICATION, f"required parameters missing: {b' '.join(missing).decode()}")
    user, client_realm = said[b"username"], said.get(b"realm", b"")
    try:
        identity = names.identity(user, client_realm.decode())
    except UnicodeDecodeError:
        raise SaslFailed(AUTHENTICATION, "realm is not UTF-8") from None
    if not hmac.compare_digest(said[b"nonce"], nonce) or said[b"nc"] != b"00000001":
        raise SaslFailed(AUTHENTICATION, "nonce changed: authentication aborted", user=identity.name)
    if said.get(b"qop", b"auth") != b"auth":
        raise SaslFailed(PROTOCOL, "client requested an unsupported qop", user=identity.name)
    if not said[b"digest-uri"].lower().startswith(names.service.encode() + b"/"):
        raise SaslFailed(AUTHENTICATION, "bad digest-uri", user=identity.name)
    account: Account | None = yield WantAccount(identity)
    if account is None or account.password is None:
        raise SaslFailed(AUTHENTICATION, "no secret in database", user=identity.name)
    authorize = said.get(b"authzid", b"")

    def value(method: bytes) -> bytes:
        assert account is not None and account.password is not None
        return response_value(
            user, client_realm, account.password, nonce=nonce, cnonce=said[b"cnonce"], count=said[b"nc"], uri=said[b"digest-uri"],
            authorize=authorize, method=method,
        )  # fmt: skip

    if not hmac.compare_digest(value(b"AUTHENTICATE"), said[b"response"]):
        raise SaslFailed(AUTHENTICATION, "client response doesn't match what we generated (tried bogus)", user=identity.name)
    if authorize and names.identity(authorize) != identity:
        raise SaslFailed(AUTHENTICATION, "Requested identity not authenticated identity", user=identity.name)
    rest = yield Challenge(b"rspauth=" + value(b""))
    if rest:
        raise SaslFailed(PROTOCOL, "unexpected response to rspauth", user=identity.name)
    return identity


def digest_client(credentials: Credentials, host: str, service: str = "smtp", cnonce: bytes | None = None) -> ClientMachine:
    """``host`` is the server's name, for the digest-uri. ``cnonce`` is for tests."""
    challenge = yield None
    said = parse_directives(challenge)
    nonce = said.get(b"nonce", b"")
    qops = said.get(b"qop", b"auth").lower().replace(b" ", b"").split(b",")
    if not nonce or said.get(b"algorithm", b"").lower() != b"md5-sess" or b"auth" not in qops:
        raise SaslFailed(PROTOCOL, "DIGEST-MD5 challenge that cannot be answered")
    if cnonce is None:
        cnonce = secrets.token_urlsafe(32).encode()
    name, at, domain = credentials.user.rpartition("@")
    realm = said.get(b"realm", b"")
    user = credentials.user.encode()
    if at and domain.encode() == realm:
        user = name.encode()
    uri = f"{service}/{host}".encode()
    authorize = credentials.authorize_as.encode()

    def value(method: bytes) -> bytes:
        return response_value(
            user, realm, credentials.password, nonce=nonce, cnonce=cnonce, count=b"00000001", uri=uri, authorize=authorize,
            method=method,
        )  # fmt: skip

    answer = b"username=" + quoted(user)
    if b"realm" in said:
        answer += b",realm=" + quoted(realm)
    answer += b",nonce=" + quoted(nonce) + b",cnonce=" + quoted(cnonce) + b",nc=00000001,qop=auth,digest-uri=" + quoted(uri)
    answer += b",response=" + value(b"AUTHENTICATE")
    if said.get(b"charset", b"").lower() == b"utf-8":
        answer += b",charset=utf-8"
    if authorize:
        answer += b",authzid=" + quoted(authorize)
    last = yield answer
    if not hmac.compare_digest(parse_directives(last).get(b"rspauth", b""), value(b"")):
        raise SaslFailed(UNPROVEN, "DIGEST-MD5: the server does not know the password")
    yield b""

"""SCRAM-SHA-256 and SCRAM-SHA-1, without channel binding. RFC 5802, RFC 7677; passwords prepared by RFC 4013.

Invariant: PBKDF2 is not done here but asked for (WantKey), for it takes milliseconds; a server's number of rounds is bounded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import stringprep
import unicodedata

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
    Verifier,
    WantAccount,
    WantKey,
)

ITERATIONS = 4096
MAX_ITERATIONS = 1_000_000
HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}
_FIRST = re.compile(rb"([ny]|p=[^,]*),(?:a=([^,]*))?,(n=([^,]*),r=([\x21-\x2b\x2d-\x7e]+)(?:,.*)?)", re.DOTALL)
_SERVER_FIRST = re.compile(rb"r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/=]+),i=([1-9][0-9]{0,9})(?:,.*)?", re.DOTALL)
_FINAL = re.compile(rb"(c=([A-Za-z0-9+/=]+),r=([\x21-\x2b\x2d-\x7e]+)(?:,.*)?),p=([A-Za-z0-9+/=]+)", re.DOTALL)
_PROHIBITED = (
    stringprep.in_table_c12, stringprep.in_table_c21_c22, stringprep.in_table_c3, stringprep.in_table_c4, stringprep.in_table_c5,
    stringprep.in_table_c6, stringprep.in_table_c7, stringprep.in_table_c8, stringprep.in_table_c9,
)  # fmt: skip


def prepared(password: bytes) -> bytes:
    """SASLprep; what is no text or may not be in one stays as it is."""
    if password.isascii():
        return password
    try:
        text = password.decode()
    except UnicodeDecodeError:
        return password
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    mapped = unicodedata.normalize("NFKC", mapped)
    if any(prohibited(c) for c in mapped for prohibited in _PROHIBITED):
        return password
    return mapped.encode()


def verifier_of(salted: bytes, hash_name: str, salt: bytes, iterations: int) -> Verifier:
    """From SaltedPassword to what a server keeps."""
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    stored = hashlib.new(hash_name, client_key).digest()
    return Verifier(iterations, salt, stored, hmac.digest(salted, b"Server Key", hash_name))


def make_verifier(password: bytes, hash_name: str, iterations: int = ITERATIONS) -> Verifier:
    """A new one with a salt of its own. Slow."""
    salt = secrets.token_bytes(16)
    return verifier_of(WantKey(hash_name, iterations, prepared(password), salt).derive(), hash_name, salt, iterations)


def is_right(password: bytes, verifier: Verifier, hash_name: str) -> bool:
    """Whether ``password`` belongs to ``verifier``. Slow."""
    salted = WantKey(hash_name, verifier.iterations, prepared(password), verifier.salt).derive()
    return hmac.compare_digest(verifier_of(salted, hash_name, verifier.salt, verifier.iterations).stored_key, verifier.stored_key)


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SaslFailed(PROTOCOL, "Invalid base64 in SCRAM input") from None


def scram_server(mechanism: str, names: ServerNames, initial: bytes | None, nonce: bytes | None = None) -> ServerMachine:
    """``nonce`` is the server's part of it, for tests."""
    hash_name = HASHES[mechanism]
    first = (yield Challenge(b"")) if initial is None else initial
    match = _FIRST.fullmatch(first)
    if match is None or match[4].startswith(b"m=") or not re.fullmatch(rb"(?:[^=]|=2C|=3D)+", match[4]):
        raise SaslFailed(PROTOCOL, f"Invalid {mechanism} input")
    binding, authorize, bare, name, client_nonce = match.groups()
    if binding.startswith(b"p"):
        raise SaslFailed(PROTOCOL, f"Channel binding is not supported with {mechanism}")
    identity = names.identity(_plain_name(name))
    account: Account | None = yield WantAccount(identity)
    verifier = account.verifiers.get(hash_name) if account is not None else None
    if verifier is None:
        if account is None or account.password is None:
            raise SaslFailed(AUTHENTICATION, "unable to canonify user and get auxprops", user=identity.name)
        salt = secrets.token_bytes(16)
        salted = yield WantKey(hash_name, ITERATIONS, prepared(account.password), salt)
        verifier = verifier_of(salted, hash_name, salt, ITERATIONS)
    if nonce is None:
        nonce = secrets.token_urlsafe(24).encode()
    both = client_nonce + nonce
    server_first = b"r=" + both + b",s=" + base64.b64encode(verifier.salt) + b",i=%d" % verifier.iterations
    final = yield Challenge(server_first)
    match = _FINAL.fullmatch(final)
    if match is None:
        raise SaslFailed(PROTOCOL, f"Invalid {mechanism} input", user=identity.name)
    without_proof, header, said_nonce, proof_text = match.groups()
    if not hmac.compare_digest(said_nonce, both):
        raise SaslFailed(PROTOCOL, f"Nonce mismatch {mechanism} input", user=identity.name)
    if _base64(header) != first[: len(first) - len(bare)]:
        raise SaslFailed(PROTOCOL, f"Channel binding mismatch {mechanism} input", user=identity.name)
    message = b",".join((bare, server_first, without_proof))
    proof = _base64(proof_text)
    signature = hmac.digest(verifier.stored_key, message, hash_name)
    if len(proof) != len(signature):
        raise SaslFailed(PROTOCOL, f"Invalid {mechanism} input", user=identity.name)
    if not hmac.compare_digest(hashlib.new(hash_name, _xor(proof, signature)).digest(), verifier.stored_key):
        raise SaslFailed(AUTHENTICATION, "StoredKey mismatch", user=identity.name)
    if authorize and names.identity(_plain_name(authorize)) != identity:
        raise SaslFailed(AUTHENTICATION, "Requested identity not authenticated identity", user=identity.name)
    rest = yield Challenge(b"v=" + base64.b64encode(hmac.digest(verifier.server_key, message, hash_name)))
    if rest:
        raise SaslFailed(PROTOCOL, f"Invalid {mechanism} input", user=identity.name)
    return identity


def _plain_name(name: bytes) -> bytes:
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


def _scram_name(name: str) -> bytes:
    return name.encode().replace(b"=", b"=3D").replace(b",", b"=2C")


def scram_client(mechanism: str, credentials: Credentials, nonce: bytes | None = None) -> ClientMachine:
    """``nonce`` is for tests."""
    hash_name = HASHES[mechanism]
    if nonce is None:
        nonce = secrets.token_urlsafe(24).encode()
    header = b"n," + (b"a=" + _scram_name(credentials.authorize_as) if credentials.authorize_as else b"") + b","
    bare = b"n=" + _scram_name(credentials.user) + b",r=" + nonce
    server_first = yield header + bare
    match = _SERVER_FIRST.fullmatch(server_first)
    if match is None or not match[1].startswith(nonce) or len(match[1]) == len(nonce):
        raise SaslFailed(PROTOCOL, f"{mechanism} challenge that cannot be answered")
    both, salt, iterations = match[1], _base64(match[2]), int(match[3])
    if iterations > MAX_ITERATIONS:
        raise SaslFailed(PROTOCOL, f"{mechanism}: the server wants {iterations} rounds")
    salted = yield WantKey(hash_name, iterations, prepared(credentials.password), salt)
    verifier = verifier_of(salted, hash_name, salt, iterations)
    without_proof = b"c=" + base64.b64encode(header) + b",r=" + both
    message = b",".join((bare, server_first, without_proof))
    client_key = hmac.digest(salted, b"Client Key", hash_name)
    proof = _xor(client_key, hmac.digest(verifier.stored_key, message, hash_name))
    last = yield without_proof + b",p=" + base64.b64encode(proof)
    expected = b"v=" + base64.b64encode(hmac.digest(verifier.server_key, message, hash_name))
    if not hmac.compare_digest(last.partition(b",")[0], expected):
        raise SaslFailed(UNPROVEN, f"{mechanism}: the server does not know the password")
    yield b""

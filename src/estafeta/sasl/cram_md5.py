"""CRAM-MD5: a keyed digest of the server's challenge. RFC 2195."""

from __future__ import annotations

import hmac
import secrets
import time

from estafeta.sasl.vocabulary import (
    AUTHENTICATION,
    PROTOCOL,
    Account,
    Challenge,
    ClientMachine,
    Credentials,
    SaslFailed,
    ServerMachine,
    ServerNames,
    WantAccount,
)


def cram_server(names: ServerNames, initial: bytes | None, challenge: bytes | None = None) -> ServerMachine:
    """``challenge`` is for tests."""
    if initial is not None:
        raise SaslFailed(PROTOCOL, "Remote sent first but mech does not allow it.")
    if challenge is None:
        challenge = f"<{secrets.randbits(64)}.{int(time.time())}@{names.host}>".encode()
    response = yield Challenge(challenge)
    user, space, digest = response.rpartition(b" ")
    if not space:
        raise SaslFailed(PROTOCOL, "need authentication name")
    identity = names.identity(user)
    account: Account | None = yield WantAccount(identity)
    if account is None or account.password is None:
        raise SaslFailed(AUTHENTICATION, "no secret in database", user=identity.name)
    expected = hmac.new(account.password, challenge, "md5").hexdigest().encode()
    if not hmac.compare_digest(expected, digest.lower()):
        raise SaslFailed(AUTHENTICATION, "incorrect digest response", user=identity.name)
    return identity


def cram_client(credentials: Credentials) -> ClientMachine:
    """CRAM-MD5."""
    challenge = yield None
    yield credentials.user.encode() + b" " + hmac.new(credentials.password, challenge, "md5").hexdigest().encode()

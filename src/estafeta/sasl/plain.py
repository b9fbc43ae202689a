"""PLAIN and LOGIN: the password itself travels. RFC 4616; LOGIN as in draft-murchison-sasl-login."""

from __future__ import annotations

from estafeta.sasl.vocabulary import (
    AUTHENTICATION,
    PROTOCOL,
    Challenge,
    ClientMachine,
    Credentials,
    SaslFailed,
    ServerMachine,
    ServerNames,
    WantCheck,
)


def plain_server(names: ServerNames, initial: bytes | None) -> ServerMachine:
    """PLAIN."""
    message = (yield Challenge(b"")) if initial is None else initial
    parts = message.split(b"\0")
    if len(parts) != 3:
        raise SaslFailed(PROTOCOL, "Can only find author (no password)" if len(parts) < 3 else "Oversized password")
    authorize, user, password = parts
    identity = names.identity(user)
    right = yield WantCheck(identity, password)
    if not right:
        raise SaslFailed(AUTHENTICATION, "Password verification failed", user=identity.name)
    if authorize:
        wanted = names.identity(authorize)
        if wanted != identity:
            raise SaslFailed(AUTHENTICATION, "Requested identity not authenticated identity", user=wanted.name)
    return identity


def login_server(names: ServerNames, initial: bytes | None) -> ServerMachine:
    """LOGIN."""
    user = (yield Challenge(b"Username:")) if initial is None else initial
    password = yield Challenge(b"Password:")
    identity = names.identity(user)
    right = yield WantCheck(identity, password)
    if not right:
        raise SaslFailed(AUTHENTICATION, user=identity.name)
    return identity


def plain_client(credentials: Credentials) -> ClientMachine:
    """PLAIN."""
    yield b"\0".join((credentials.authorize_as.encode(), credentials.user.encode(), credentials.password))


def login_client(credentials: Credentials) -> ClientMachine:
    """LOGIN."""
    yield None
    yield credentials.user.encode()
    yield credentials.password

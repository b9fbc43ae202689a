"""What SASL machines ask for and answer, without I/O.

Source: RFC 4422; the failure texts are Cyrus SASL's, as logs and replies show them. A mechanism is a generator: it yields what it
needs (a response to a challenge, an account, a check, a derived key) and is sent it. Invariant: no exception, repr or log text of
this package contains a password or what can be made from one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

AUTHENTICATION = "authentication failure"
PROTOCOL = "bad protocol / cancel"
NO_MECHANISM = "no mechanism available"
ENCODING = "another step is needed in authentication"
TOO_WEAK = "encryption needed to use mechanism"
GENERIC = "generic failure"
UNPROVEN = "server failed mutual authentication step"


class SaslFailed(Exception):
    """It did not work. ``reason`` is told to the client, ``detail`` is for the log; ``temporary``: not the client's fault."""

    def __init__(self, reason: str, detail: str = "", *, user: str = "", temporary: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.user = user
        self.temporary = temporary


class Unavailable(Exception):
    """What knows the passwords cannot be asked; the text says why."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An account's name: ``user`` and ``realm`` for looking it up, ``name`` for everybody else."""

    user: str
    realm: str
    name: str


@dataclass(frozen=True, slots=True)
class Verifier:
    """What RFC 5802 keeps instead of a password."""

    iterations: int
    salt: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Account:
    """What is known of an account. ``verifiers`` by hash name, ``sha256`` or ``sha1``."""

    password: bytes | None = field(default=None, repr=False)
    verifiers: dict[str, Verifier] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send this to the client; the machine wants its response (bytes)."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WantAccount:
    """The machine wants an Account, or None if there is none."""

    identity: Identity


@dataclass(frozen=True, slots=True)
class WantCheck:
    """The machine wants to know whether the password is the account's (bool)."""

    identity: Identity
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WantKey:
    """The machine wants PBKDF2 (bytes): slow, to be done where nobody waits for it."""

    hash_name: str
    iterations: int
    password: bytes = field(repr=False)
    salt: bytes = field(repr=False)

    def derive(self) -> bytes:
        """Do it here and now."""
        return hashlib.pbkdf2_hmac(self.hash_name, self.password, self.salt, self.iterations)


ServerAsk = Challenge | WantAccount | WantCheck | WantKey
ServerMachine = Generator[ServerAsk, Any, Identity]
ClientMachine = Generator[bytes | WantKey | None, Any, None]
"""First it yields the initial response, None if the server has to begin; then a response for each challenge it is sent."""


@dataclass(frozen=True, slots=True)
class ServerNames:
    """Who the server is: ``realm`` is smtpd_sasl_local_domain (may be empty), ``host`` myhostname, ``service`` smtp."""

    host: str
    realm: str = ""
    service: str = "smtp"

    def identity(self, user: bytes, realm: str | None = None) -> Identity:
        """The account that a client means by ``user``; raises SaslFailed for a name that cannot be one."""
        try:
            name = user.decode()
        except UnicodeDecodeError:
            raise SaslFailed(AUTHENTICATION, "user name is not UTF-8") from None
        name = name.strip(" \t\r\n")
        if not name:
            raise SaslFailed(GENERIC, "All-whitespace username.", temporary=True)
        if any(char < " " or char == "\x7f" for char in name) or len(name) > 255:
            raise SaslFailed(AUTHENTICATION, "bad user name")
        local, at, domain = name.rpartition("@")
        if at and local:
            return Identity(local, domain, name)
        realm = self.realm if realm is None else realm
        return Identity(name, realm or self.host, f"{name}@{realm}" if realm else name)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a client logs in with."""

    user: str
    password: bytes = field(repr=False)
    authorize_as: str = ""


def encode(data: bytes) -> bytes:
    """Base64."""
    return base64.b64encode(data)


def decode(text: bytes) -> bytes:
    """Strict base64 (RFC 4648 section 3.3 and 3.5): no white space, whole quanta; raises SaslFailed."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SaslFailed(ENCODING) from None
    if len(text) % 4 or base64.b64encode(data) != text:
        raise SaslFailed(ENCODING)
    return data

"""The server's side as smtpd(8) sees it: an exchange that is fed base64 and answers with base64, and who checks the passwords.

Source: SASL_README; behaviour as observed from Postfix with Cyrus SASL. ``smtpd_sasl_type = cyrus`` is here, dovecot in dovecot.py.
Invariants: a failure names an account at most; what cannot be asked is a temporary failure; nothing here blocks the loop (PBKDF2
is done in a thread).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from estafeta.sasl import saslauthd
from estafeta.sasl.app_conf import SASLAUTHD, SASLDB, AppConf
from estafeta.sasl.machines import server_machine
from estafeta.sasl.properties import MECHANISMS, Mechanism
from estafeta.sasl.sasldb import Sasldb
from estafeta.sasl.scram import prepared, verifier_of
from estafeta.sasl.vocabulary import (
    GENERIC,
    NO_MECHANISM,
    PROTOCOL,
    TOO_WEAK,
    Account,
    Challenge,
    Identity,
    SaslFailed,
    ServerAsk,
    ServerMachine,
    ServerNames,
    Unavailable,
    Verifier,
    WantAccount,
    WantCheck,
    WantKey,
    decode,
    encode,
)

_WITH_SASLAUTHD = ("PLAIN", "LOGIN")


@dataclass(frozen=True, slots=True)
class Reply:
    """A step's outcome: ``challenge`` (base64) to be sent, or, when it is None, success for ``user``."""

    challenge: bytes | None = field(repr=False)
    user: str = ""


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What a backend may be told of the connection."""

    address: str
    port: str
    server_address: str
    server_port: str
    encrypted: bool


class Exchange(Protocol):
    """One AUTH command."""

    async def begin(self, initial: bytes | None) -> Reply:
        """``initial``: the response in the command, base64. Raises SaslFailed."""

    async def step(self, response: bytes) -> Reply:
        """The client's answer to a challenge, base64. Raises SaslFailed."""

    def abort(self) -> None:
        """The client gave up, or is gone."""


class SaslServer(Protocol):
    """What one smtpd service asks."""

    async def mechanisms(self) -> Sequence[Mechanism]:
        """What is there, in the order to announce it; raises Unavailable."""

    def exchange(self, mechanism: str, options: frozenset[str], client: ClientFacts) -> Exchange:
        """A new exchange."""

    def close(self) -> None:
        """The worker ends."""


class CyrusServer:
    """Our own mechanisms, with accounts in sasldb or behind saslauthd, as smtpd.conf says."""

    def __init__(self, conf: AppConf, names: ServerNames) -> None:
        self.conf = conf
        self.names = names
        wants_secrets = SASLDB in conf.methods or bool(set(conf.mechanisms or ()) - set(_WITH_SASLAUTHD))
        self.sasldb = Sasldb(conf.sasldb_path) if wants_secrets else None
        self._mechanisms = [MECHANISMS[name] for name in self._names() if name in MECHANISMS]

    def _names(self) -> Sequence[str]:
        if self.conf.mechanisms is not None:
            return self.conf.mechanisms
        return tuple(MECHANISMS) if SASLDB in self.conf.methods else _WITH_SASLAUTHD

    async def mechanisms(self) -> Sequence[Mechanism]:
        return self._mechanisms

    def exchange(self, mechanism: str, options: frozenset[str], client: ClientFacts) -> Exchange:
        return CyrusExchange(self, mechanism.upper(), options)

    def close(self) -> None:
        """Nothing is open but the file."""

    def offers(self, mechanism: str) -> bool:
        """Whether it may be used at all."""
        return any(known.name == mechanism for known in self._mechanisms)

    def find(self, identity: Identity) -> Account | None:
        """Raises Unavailable."""
        if self.sasldb is None:
            raise Unavailable("no sasldb")
        return self.sasldb.find(identity.user, identity.realm)

    async def check(self, identity: Identity, password: bytes) -> bool:
        """Ask the methods in order; the first yes counts. Raises Unavailable."""
        trouble: Unavailable | None = None
        for method in self.conf.methods:
            try:
                if method == SASLAUTHD:
                    right = await saslauthd.check(self.conf.saslauthd_path, identity, password, self.names.service)
                else:
                    right = await self._check_account(identity, password)
            except Unavailable as error:
                trouble = error
                continue
            if right:
                return True
        if trouble is not None:
            raise trouble
        if not self.conf.methods:
            raise Unavailable(f"{self.conf.path}: no usable pwcheck_method")
        return False

    async def _check_account(self, identity: Identity, password: bytes) -> bool:
        account = self.find(identity)
        if account is None:
            return False
        if account.password is not None:
            return hmac.compare_digest(account.password, password)
        for hash_name, verifier in account.verifiers.items():
            return await _is_right(password, verifier, hash_name)
        return False


async def _is_right(password: bytes, verifier: Verifier, hash_name: str) -> bool:
    want = WantKey(hash_name, verifier.iterations, prepared(password), verifier.salt)
    salted = await derive(want)
    return verifier_of(salted, hash_name, verifier.salt, verifier.iterations).stored_key == verifier.stored_key


async def derive(want: WantKey) -> bytes:
    """PBKDF2 in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, want.derive)


class CyrusExchange:
    """See Exchange."""

    def __init__(self, server: CyrusServer, mechanism: str, options: frozenset[str]) -> None:
        self._server = server
        self._mechanism = mechanism
        self._options = options
        self._machine: ServerMachine | None = None

    async def begin(self, initial: bytes | None) -> Reply:
        data = None if initial is None else decode(initial)
        mechanism = self._mechanism
        if not self._server.offers(mechanism):
            raise SaslFailed(NO_MECHANISM, f"Couldn't find mech {mechanism}")
        if not MECHANISMS[mechanism].fits(self._options):
            raise SaslFailed(TOO_WEAK)
        machine = self._machine = server_machine(mechanism, self._server.names, data)
        try:
            return await self._serve(machine, next(machine))
        except StopIteration as stop:
            return Reply(None, _name(stop))

    async def step(self, response: bytes) -> Reply:
        machine = self._machine
        if machine is None:
            raise SaslFailed(PROTOCOL)
        data = decode(response)
        try:
            return await self._serve(machine, machine.send(data))
        except StopIteration as stop:
            return Reply(None, _name(stop))

    async def _serve(self, machine: ServerMachine, ask: ServerAsk) -> Reply:
        """Give the machine what it asks for, until that is something from the client. Raises StopIteration's value as a Reply."""
        while not isinstance(ask, Challenge):
            identity = ask.identity if not isinstance(ask, WantKey) else None
            answer: object
            try:
                if isinstance(ask, WantAccount):
                    answer = self._server.find(ask.identity)
                elif isinstance(ask, WantCheck):
                    answer = await self._server.check(ask.identity, ask.password)
                else:
                    answer = await derive(ask)
            except Unavailable as error:
                user = identity.name if identity is not None else ""
                raise SaslFailed(GENERIC, str(error), user=user, temporary=True) from None
            try:
                ask = machine.send(answer)
            except StopIteration as stop:
                return Reply(None, _name(stop))
        return Reply(encode(ask.data))

    def abort(self) -> None:
        if self._machine is not None:
            self._machine.close()
            self._machine = None


def _name(stop: StopIteration) -> str:
    identity = stop.value
    assert isinstance(identity, Identity)
    return identity.name

"""How often and how much one client may: smtpd_client_*_limit, counted by anvil(8) for all workers together.

Source: postconf(5) smtpd_client_connection_count_limit and its kind, TUNING_README. Decided once: a limit of 0 asks nobody, and so
do clients of smtpd_client_event_limit_exceptions. Invariant: without anvil nobody is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from estafeta.config.config import Config
from estafeta.ipc.channel import Channel, ServiceLost
from estafeta.ipc.messages import AnvilDisconnect, AnvilEvent, AnvilReply
from estafeta.tables.match_list import NamadrList
from estafeta.tables.table import LookupFailed, OpenOptions

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session


@dataclass(frozen=True, slots=True)
class _Limit:
    value: int
    what: str  # in the warning
    reply: str  # {address}


class ClientLimits:
    """One smtpd service's limits."""

    def __init__(self, config: Config, options: OpenOptions, service: str, channel: Callable[[], Channel | None]) -> None:
        """``channel`` gives the way to anvil, or None where there is none; asked when a worker first needs it."""
        self._service = service
        self._make_channel = channel
        self._channel: Channel | None = None
        self._asked = False
        self._host = config.get("myhostname")
        self._count_limit = config.int("smtpd_client_connection_count_limit")
        self._connection_rate = config.int("smtpd_client_connection_rate_limit")
        self._limits = {
            "message": _Limit(config.int("smtpd_client_message_rate_limit"), "Message delivery request rate",
                              "450 4.7.1 Error: too much mail from {address}"),
            "recipient": _Limit(config.int("smtpd_client_recipient_rate_limit"), "Recipient address rate",
                                "450 4.7.1 Error: too many recipients from {address}"),
            "auth": _Limit(config.int("smtpd_client_auth_rate_limit"), "AUTH command rate",
                           "450 4.7.1 Error: too many AUTH commands from {address}"),
        }  # fmt: skip
        self._any = self._count_limit > 0 or self._connection_rate > 0 or any(x.value > 0 for x in self._limits.values())
        parents = config.words("parent_domain_matches_subdomains")
        name = "smtpd_client_event_limit_exceptions"
        self._exceptions = NamadrList(config.get(name), options, name, match_parents=name in parents)

    async def connected(self, session: Session) -> bytes | None:
        """Count the connection; a reply to hang up with if it is one too many."""
        if not self._any:
            return None
        facts = session.facts
        try:
            if await self._exceptions.match(facts.client_name, facts.client_address):
                return None
        except LookupFailed as error:
            session.warning(str(error))
            return None
        session.is_limited = True
        if self._count_limit <= 0 and self._connection_rate <= 0:
            return None
        reply = await self._event(session, "connect")
        if reply is None:
            return None
        session.is_counted = True
        if session.closed:  # while anvil was asked
            self.disconnected(session)
            return None
        refusal = f"421 4.7.0 {self._host} Error: too many connections from {facts.client_address}".encode()
        if 0 < self._count_limit < reply.count:
            self._exceeded(session, "Connection concurrency", reply.count)
            return refusal
        if 0 < self._connection_rate < reply.rate:
            self._exceeded(session, "Connection rate", reply.rate)
            return refusal
        return None

    def disconnected(self, session: Session) -> None:
        """The connection is over."""
        if session.is_counted and self._channel is not None:
            session.is_counted = False
            self._channel.notify(AnvilDisconnect(self._name(session)))

    async def exceeded(self, session: Session, kind: str) -> bytes | None:
        """Count an event (message, recipient, auth); a reply if that was one too many."""
        limit = self._limits[kind]
        if limit.value <= 0 or not session.is_limited:
            return None
        reply = await self._event(session, kind)
        if reply is None or reply.rate <= limit.value:
            return None
        self._exceeded(session, limit.what, reply.rate)
        return limit.reply.format(address=session.facts.client_address).encode()

    def _exceeded(self, session: Session, what: str, value: int) -> None:
        session.warning(f"{what} limit exceeded: {value} from {session.where} for service {self._service}")

    def _name(self, session: Session) -> str:
        return f"{self._service}:{session.facts.client_address}"

    async def _event(self, session: Session, kind: str) -> AnvilReply | None:
        if not self._asked:
            self._asked = True
            self._channel = self._make_channel()
        if self._channel is None:
            return None
        try:
            reply = await self._channel.call(AnvilEvent(kind, self._name(session)))
        except ServiceLost as error:
            session.warning(f"anvil service: {error}")
            return None
        return reply if isinstance(reply, AnvilReply) else None

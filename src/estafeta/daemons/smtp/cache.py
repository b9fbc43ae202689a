"""Sessions that stay open between deliveries, and who might want them.

Source: CONNECTION_CACHE_README; man 5 postconf smtp_connection_cache_*, smtp_connection_reuse_*. A session is worth keeping for
smtp_connection_cache_time_limit while the queue manager has more for the destination than it may send at once (as in Postfix, which
was watched at it), and for a short lull while deliveries follow one another closely here: a server that takes few clients at a time
is not kept from the others by mail that comes one by one. Invariant: a session is in the cache only while it is idle and open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from estafeta.daemons.smtp.secure import Security
from estafeta.daemons.smtp.session import Session
from estafeta.daemons.smtp.settings import Settings
from estafeta.sasl.vocabulary import Credentials

_LULL_S = 0.1  # between two deliveries that follow one another closely
_KNOWN_DESTINATIONS = 4096

AddressKey = tuple[str, str, int]
_Key = TypeVar("_Key", str, AddressKey)


class _Demand:
    """How many deliveries to one destination are here, and when there was the last one."""

    __slots__ = ("close", "last_at", "open")

    def __init__(self) -> None:
        self.open = 0
        self.last_at = -_LULL_S
        self.close = False  # the last one came right behind another


class SessionCache:
    """See the module. ``clock`` is monotonic, in seconds."""

    def __init__(self, settings: Settings, always: Callable[[str], bool], clock: Callable[[], float]) -> None:
        self._settings = settings
        self._always = always
        self._clock = clock
        self._by_destination: dict[str, list[Session]] = {}
        self._by_address: dict[AddressKey, list[Session]] = {}
        self._demand: dict[str, _Demand] = {}

    # -- demand --------------------------------------------------------------------------------------------------------

    def arrived(self, destination: str) -> None:
        """A delivery to ``destination`` is here."""
        demand = self._demand.get(destination)
        if demand is None:
            if len(self._demand) >= _KNOWN_DESTINATIONS:
                self._forget()
            demand = self._demand[destination] = _Demand()
        now = self._clock()
        demand.close = demand.open > 0 or now - demand.last_at < _LULL_S
        demand.open += 1
        demand.last_at = now

    def finished(self, destination: str) -> None:
        """It is over."""
        demand = self._demand.get(destination)
        if demand is not None:
            demand.open = max(0, demand.open - 1)
            demand.last_at = self._clock()

    def forget_demand(self) -> None:
        """The queue manager is gone, and with it the deliveries that waited."""
        self._demand.clear()

    def _forget(self) -> None:
        limit = self._clock() - _LULL_S
        self._demand = {name: item for name, item in self._demand.items() if item.open > 0 or item.last_at > limit}

    def wants(self, session: Session, *, more: bool) -> bool:
        """Whether ``session`` is to be kept after its delivery; ``more``: the queue manager has more for the destination."""
        settings = self._settings
        now = self._clock()
        if settings.sender_dependent_login or (session.is_encrypted and not session.security.reusable):
            return False
        if settings.reuse_time_limit_s and now - session.opened_at >= settings.reuse_time_limit_s:
            return False
        if settings.reuse_count_limit > 0 and session.uses >= settings.reuse_count_limit:
            return False
        if self._always(session.destination):
            return True
        if not settings.cache_on_demand:
            return False
        demand = self._demand.get(session.destination)
        return more or (demand is not None and (demand.close or demand.open > 1))

    # -- sessions ------------------------------------------------------------------------------------------------------

    def keep(self, session: Session, *, more: bool) -> None:
        """Put an idle session away for smtp_connection_cache_time_limit, or for a lull."""
        limit_s = self._settings.cache_time_limit_s
        if not more and limit_s > _LULL_S and not self._always(session.destination):
            limit_s = _LULL_S
        session.rest(limit_s)
        self._by_destination.setdefault(session.destination, []).append(session)
        self._by_address.setdefault(_key(session), []).append(session)

    def take(self, destination: str) -> Session | None:
        """An idle session to ``destination``, the one used last."""
        waiting = self._by_destination.get(destination)
        return self._use(waiting[-1]) if waiting else None

    def has_address(self, host: str, address: str, port: int) -> bool:
        """Whether there is an idle session to one address."""
        return (host, address, port) in self._by_address

    def take_address(
        self, host: str, address: str, port: int, security: Security, credentials: Credentials | None
    ) -> Session | None:
        """An idle session to one address, opened for any destination with the same demands on TLS and the same login."""
        for session in reversed(self._by_address.get((host, address, port), ())):
            login = session.login.credentials if session.login is not None else None
            same = login == credentials and session.security == security
            if same and (not security.policy.authenticated or not session.is_encrypted):
                return self._use(session)
        return None

    def _use(self, session: Session) -> Session:
        self.forget(session)
        session.idle = False
        return session

    def forget(self, session: Session) -> None:
        """``session`` is closed or in use."""
        _remove(self._by_destination, session.destination, session)
        _remove(self._by_address, _key(session), session)

    def idle_sessions(self) -> list[Session]:
        """All that are kept now."""
        return [session for sessions in self._by_destination.values() for session in sessions]


def _key(session: Session) -> AddressKey:
    peer = session.peer
    return (peer.host, peer.address, peer.port)


def _remove(table: dict[_Key, list[Session]], key: _Key, session: Session) -> None:
    sessions = table.get(key)
    if sessions is not None and session in sessions:
        sessions.remove(session)
        if not sessions:
            del table[key]

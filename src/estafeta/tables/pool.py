"""A bounded set of connections to the servers of a network table.

Invariants: a look-up ends within the time limit, with an answer or with LookupFailed; a server that fails is left alone for a
while that doubles up to half a minute, and others are asked; a kept connection that proves dead is replaced before that counts
as a failure; nothing is connected before the first look-up, hence after the fork. The work is done in a task of its own: callers
may be coroutines without one, and they can go away at any time.
"""

from __future__ import annotations

import asyncio
import os
import random
import types
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Generic, Protocol, TypeVar

from estafeta.tables.servers import Server
from estafeta.tables.table import LookupFailed

Q = TypeVar("Q")
R = TypeVar("R")
_Q_contra = TypeVar("_Q_contra", contravariant=True)
_R_co = TypeVar("_R_co", covariant=True)

IDLE_S = 60.0
CONNECT_LIMIT_S = 10.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_BROKEN = (OSError, EOFError, asyncio.LimitOverrunError)


class Broken(Exception):
    """The connection is of no use any more: another one may be tried."""


class Refused(Exception):
    """The server says that it cannot answer this request; the connection goes on."""


class Connection(Protocol[_Q_contra, _R_co]):
    """One connection; one request at a time."""

    async def ask(self, request: _Q_contra) -> _R_co:
        """The answer; raises Refused, Broken, OSError, EOFError."""

    def close(self) -> None:
        """Close at once."""


class _Closable(Protocol):
    def close(self) -> None: ...


async def logged_in(connection: _Closable, work: Awaitable[None]) -> None:
    """Wait for a login; a connection whose login fails is closed. Raises what the login raises, Broken if the server hung up."""
    try:
        await work
    except BaseException as error:
        connection.close()
        if isinstance(error, asyncio.IncompleteReadError):
            raise Broken("the server closed the connection during the login") from None
        raise


class _State:
    """What is known of a server."""

    __slots__ = ("down_until", "failures", "last_success", "server")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.down_until = 0.0
        self.failures = 0
        self.last_success = 0.0


@types.coroutine
def _needs_a_loop() -> Generator[None, None, None]:
    yield


class Pool(Generic[Q, R]):
    """See the module."""

    def __init__(
        self,
        name: str,
        servers: Sequence[Server],
        connect: Callable[[Server], Awaitable[Connection[Q, R]]],
        *,
        warn: Callable[[str], None],
        time_limit_s: float,
        connect_limit_s: float = CONNECT_LIMIT_S,
        idle_s: float = IDLE_S,
        size: int = 8,
        in_order: bool = False,
    ) -> None:
        """``in_order``: servers are tried as listed; otherwise UNIX-domain sockets first, each group in random order."""
        self.name = name
        self._states = [_State(server) for server in servers]
        self._connect = connect
        self._warn = warn
        self._time_limit_s = time_limit_s
        self._connect_limit_s = connect_limit_s
        self._idle_s = idle_s
        self._in_order = in_order
        self._idle: list[tuple[float, _State, Connection[Q, R]]] = []
        self._free = size
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._last_reason = ""

    async def ask(self, request: Q) -> R:
        """The answer of a server; raises LookupFailed."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            await _needs_a_loop()  # a command drives the look-up on the spot: it sees that it has to wait
            raise LookupFailed(self.name, "needs an event loop") from None
        outcome = await loop.create_task(self._bounded(request))
        if isinstance(outcome, LookupFailed):
            raise outcome
        return outcome

    async def _bounded(self, request: Q) -> R | LookupFailed:
        """Exceptions come back as values: nobody may be there any more to take them."""
        started = self._now()
        at: list[_State] = []  # the server that is asked now
        try:
            async with asyncio.timeout(self._time_limit_s):
                await self._slot()
                try:
                    return await self._anywhere(request, at)
                finally:
                    self._give_slot()
        except TimeoutError:
            reason = f"no answer within {self._time_limit_s:g} s"
            for state in at[-1:]:
                if state.last_success < started:
                    self._failed(state, f"{state.server}: {reason}")
            return LookupFailed(self.name, reason)
        except LookupFailed as error:
            return error
        except Refused as error:
            return LookupFailed(self.name, str(error))
        except Exception as error:  # noqa: BLE001 - whatever a server makes happen is a temporary failure
            return LookupFailed(self.name, f"unexpected: {type(error).__name__}: {error}")

    async def _slot(self) -> None:
        if self._free > 0:
            self._free -= 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._give_slot()
            raise

    def _give_slot(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._free += 1

    async def _anywhere(self, request: Q, at: list[_State]) -> R:
        while self._idle:
            _, state, connection = self._idle.pop()
            at.append(state)
            try:
                return await self._ask(state, connection, request)
            except (Broken, *_BROKEN):
                self._drop_idle(state)  # the server may have been restarted: its other connections are gone too
        reason = ""
        for state in self._order():
            at.append(state)
            try:
                connection = await self._connected(state)
            except (Broken, Refused, *_BROKEN) as error:
                reason = f"{state.server}: {_words(error)}"
                self._failed(state, reason)
                continue
            try:
                return await self._ask(state, connection, request)
            except (Broken, *_BROKEN) as error:
                reason = f"{state.server}: {_words(error)}"
                self._failed(state, reason)
        if not reason:
            reason = f"no server is asked now, all have failed a moment ago; {self._last_reason}"
        raise LookupFailed(self.name, reason)

    def _order(self) -> list[_State]:
        now = self._now()
        usable = [state for state in self._states if state.down_until <= now]
        if not self._in_order:
            random.shuffle(usable)
            usable.sort(key=lambda state: not state.server.path)
        return usable

    async def _connected(self, state: _State) -> Connection[Q, R]:
        try:
            async with asyncio.timeout(self._connect_limit_s):
                return await self._connect(state.server)
        except TimeoutError:
            raise Broken(f"no connection within {self._connect_limit_s:g} s") from None

    async def _ask(self, state: _State, connection: Connection[Q, R], request: Q) -> R:
        try:
            answer = await connection.ask(request)
        except Refused:
            self._succeeded(state, connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._succeeded(state, connection)
        return answer

    def _succeeded(self, state: _State, connection: Connection[Q, R]) -> None:
        now = self._now()
        if state.failures:
            state.failures = 0
            state.down_until = 0.0
        state.last_success = now
        self._idle.append((now, state, connection))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s, self._close_old)

    def _failed(self, state: _State, reason: str) -> None:
        state.down_until = self._now() + min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**state.failures)
        state.failures = min(state.failures + 1, 10)
        self._last_reason = reason
        self._warn(f"table {self.name}: {reason}")

    def _drop_idle(self, state: _State) -> None:
        for entry in [entry for entry in self._idle if entry[1] is state]:
            self._idle.remove(entry)
            entry[2].close()

    def _close_old(self) -> None:
        self._timer = None
        limit = self._now() - self._idle_s
        keep = [entry for entry in self._idle if entry[0] > limit]
        for entry in self._idle:
            if entry[0] <= limit:
                entry[2].close()
        self._idle = keep
        if keep:
            oldest = min(entry[0] for entry in keep)
            self._timer = asyncio.get_running_loop().call_later(max(0.1, oldest - limit), self._close_old)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def close(self) -> None:
        """Close what is idle."""
        for _, _, connection in self._idle:
            connection.close()
        self._idle.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno and error.strerror:
        return os.strerror(error.errno) if error.errno > 0 else error.strerror  # below 0: a name that is not resolved
    if isinstance(error, asyncio.IncompleteReadError):
        return "the server closed the connection"
    return str(error) or type(error).__name__

"""The client of SMTPD policy servers: attributes out, one action back, over connections that are kept.

Source: SMTPD_POLICY_README, postconf(5) smtpd_policy_service_*. Any trouble is a PolicyFailed after try_limit tries.
Invariants: a request has a connection to itself while it is under way; a connection that failed or is too old is not used again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MAX_REPLY = 16384


class PolicyFailed(Exception):
    """The policy server gave no answer; the text says why."""


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """smtpd_policy_service_*; times in seconds."""

    timeout_s: float
    max_idle_s: float
    max_ttl_s: float
    try_limit: int
    retry_delay_s: float
    request_limit: int  # 0: no limit


@dataclass(slots=True, eq=False)
class PolicyConnection:
    """One connection to a policy server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    opened_at: float
    idle_since: float
    requests: int = 0


# Numeric addresses of a host; raises OSError.
FindAddresses = Callable[[str], Awaitable[list[str]]]


def parse_endpoint(text: str) -> tuple[str, str, str]:
    """(kind, host or path, port) of ``inet:host:port``, ``unix:path``; raises ValueError."""
    kind, colon, rest = text.partition(":")
    if kind == "local":
        kind = "unix"
    if not colon or kind not in ("inet", "unix") or not rest:
        raise ValueError(f'bad policy service "{text}" (specify inet:host:port or unix:path)')
    if kind == "unix":
        return kind, rest, ""
    host, colon, port = rest.rpartition(":")
    if not colon:
        host, port = "localhost", rest
    return kind, host.removeprefix("[").removesuffix("]") or "localhost", port


def encode(attributes: list[tuple[str, str]]) -> bytes:
    """A request: ``name=value`` lines and an empty one; what would break the lines becomes a question mark."""
    lines = [f"{name}={''.join('?' if c in _BAD else c for c in value)}" for name, value in attributes]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "surrogateescape")


_BAD = "\0\n\r"


class PolicyClient:
    """Asks one policy service. Kept by a worker, shared by its sessions."""

    def __init__(
        self, endpoint: str, port: int, settings: PolicySettings, find_addresses: FindAddresses | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """``endpoint`` as in check_policy_service; ``port``: the number of its port. Raises ValueError."""
        self.endpoint = endpoint
        self._kind, self._host, _ = parse_endpoint(endpoint)
        self._port = port
        self._settings = settings
        self._find_addresses = find_addresses
        self._clock = clock
        self._idle: list[PolicyConnection] = []

    async def ask(
        self, attributes: list[tuple[str, str]], preferred: PolicyConnection | None = None
    ) -> tuple[str, PolicyConnection]:
        """The action, and the connection that gave it (to be preferred next time). Raises PolicyFailed."""
        # A task of its own: time-outs need one.
        return await asyncio.get_running_loop().create_task(self._ask(encode(attributes), preferred))

    async def _ask(self, request: bytes, preferred: PolicyConnection | None) -> tuple[str, PolicyConnection]:
        settings = self._settings
        problem = ""
        tries = 0
        while True:
            connection = self._take(preferred)
            fresh = connection is None
            try:
                async with asyncio.timeout(settings.timeout_s):
                    if connection is None:
                        connection = await self._connect()
                    connection.writer.write(request)
                    action = await _read_action(connection.reader)
            except TimeoutError:
                problem = "Connection timed out"
            except (OSError, EOFError, ValueError) as error:
                problem = str(error) or "Success"
            else:
                self._give_back(connection)
                return action, connection
            if connection is not None:
                connection.writer.close()
            tries += 1
            if not fresh:
                self.close()  # the server may have closed its idle connections: the next try makes a new one, at once
                if tries < max(2, settings.try_limit):
                    continue
            if tries >= settings.try_limit:
                raise PolicyFailed(f"problem talking to server {self._shown()}: {problem}")
            await asyncio.sleep(settings.retry_delay_s)

    def _shown(self) -> str:
        return self.endpoint.partition(":")[2]

    def _take(self, preferred: PolicyConnection | None) -> PolicyConnection | None:
        now = self._clock()
        settings = self._settings
        usable = []
        for known in self._idle:
            if known.reader.at_eof() or now - known.idle_since > settings.max_idle_s or now - known.opened_at > settings.max_ttl_s:
                known.writer.close()
            else:
                usable.append(known)
        self._idle = usable
        if preferred is not None and preferred in usable:
            usable.remove(preferred)
            return preferred
        return usable.pop() if usable else None

    def _give_back(self, connection: PolicyConnection) -> None:
        connection.requests += 1
        connection.idle_since = self._clock()
        if self._settings.request_limit and connection.requests >= self._settings.request_limit:
            connection.writer.close()
        else:
            self._idle.append(connection)

    async def _connect(self) -> PolicyConnection:
        now = self._clock()
        if self._kind == "unix":
            reader, writer = await asyncio.open_unix_connection(self._host, limit=MAX_REPLY)
            return PolicyConnection(reader, writer, now, now)
        addresses = [self._host] if self._find_addresses is None else await self._find_addresses(self._host)
        problem: OSError = OSError(f"no address for {self._host}")
        for address in addresses:
            try:
                reader, writer = await asyncio.open_connection(address, self._port, limit=MAX_REPLY)
            except OSError as error:
                problem = error
                continue
            return PolicyConnection(reader, writer, now, now)
        raise problem

    def close(self) -> None:
        """End every idle connection."""
        for connection in self._idle:
            connection.writer.close()
        self._idle.clear()


async def _read_action(reader: asyncio.StreamReader) -> str:
    """The value of ``action``; raises EOFError, ValueError."""
    action = None
    for _ in range(100):
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            raise EOFError("Application error") from None  # what Postfix says when the server hangs up
        except asyncio.LimitOverrunError:
            raise ValueError("reply line too long") from None
        text = line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
        if not text:
            if action is None:
                raise ValueError("reply without an action")
            return action
        name, _, value = text.partition("=")
        if name.strip() == "action":
            action = value.strip()
    raise ValueError("reply with too many lines")

"""The client of policy servers: request form, kept connections, what happens when the server is gone, slow or talks nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from estafeta.clients.policy import PolicyClient, PolicyFailed, PolicySettings, encode, parse_endpoint

SETTINGS = PolicySettings(timeout_s=5, max_idle_s=300, max_ttl_s=1000, try_limit=2, retry_delay_s=0, request_limit=0)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def test_a_request() -> None:
    assert encode([("request", "x"), ("sender", "a\nb=c")]) == b"request=x\nsender=a?b=c\n\n"


@pytest.mark.parametrize("text", ["", "inet:", "tcp:x:1", "x", "unix"])
def test_bad_endpoints(text: str) -> None:
    with pytest.raises(ValueError, match="bad policy service"):
        parse_endpoint(text)


def test_endpoints() -> None:
    assert parse_endpoint("inet:[::1]:99") == ("inet", "::1", "99")
    assert parse_endpoint("inet:99") == ("inet", "localhost", "99")
    assert parse_endpoint("local:private/p") == ("unix", "private/p", "")


def serve(tmp_path: Path, handler: Handler, scenario: Callable[[PolicyClient], Awaitable[None]],
          settings: PolicySettings = SETTINGS) -> None:  # fmt: skip
    async def main() -> None:
        path = str(tmp_path / "p")
        server = await asyncio.start_unix_server(handler, path)
        client = PolicyClient(f"unix:{path}", 0, settings)
        try:
            await scenario(client)
        finally:
            client.close()
            server.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            if rest:
                await asyncio.wait(rest, timeout=5)
            await asyncio.sleep(0)  # transports close with the next turn

    asyncio.run(main())


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, text: bytes, times: int = 100) -> None:
    for _ in range(times):
        try:
            await reader.readuntil(b"\n\n")
        except asyncio.IncompleteReadError:
            break
        writer.write(text)
    writer.close()


def test_a_connection_is_kept(tmp_path: Path) -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await _answer(reader, writer, b"other=1\naction=DUNNO now\n\n")

    async def scenario(client: PolicyClient) -> None:
        for _ in range(3):
            assert (await client.ask([("a", "b")]))[0] == "DUNNO now"
        assert connections == 1

    serve(tmp_path, handler, scenario)


def test_a_server_that_closes_after_each_answer(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _answer(reader, writer, b"action=OK\n\n", 1)

    async def scenario(client: PolicyClient) -> None:
        for _ in range(5):
            assert (await client.ask([("a", "b")]))[0] == "OK"

    serve(tmp_path, handler, scenario)


@pytest.mark.parametrize("reply", [b"", b"nonsense\n\n", b"\n", b"action=" + b"x" * 50000 + b"\n\n"])
def test_bad_answers_fail(tmp_path: Path, reply: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _answer(reader, writer, reply, 1)

    async def scenario(client: PolicyClient) -> None:
        with pytest.raises(PolicyFailed):
            await client.ask([("a", "b")])

    serve(tmp_path, handler, scenario)


def test_silence_ends(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async def scenario(client: PolicyClient) -> None:
        with pytest.raises(PolicyFailed, match="timed out"):
            await client.ask([("a", "b")])

    serve(tmp_path, handler, scenario, PolicySettings(0.05, 1, 1, 1, 0, 0))


def test_nobody_there(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(PolicyFailed):
            await PolicyClient(f"unix:{tmp_path}/none", 0, SETTINGS).ask([("a", "b")])

    asyncio.run(main())

"""External tables without servers: templates, quoting, LDAP messages, the pool's behaviour, whatever a server sends."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estafeta.system.immediate import WouldWait, run_now
from estafeta.tables import ldap_message as ldap
from estafeta.tables.mysql_protocol import native_password
from estafeta.tables.open import open_table
from estafeta.tables.pgsql_protocol import Scram
from estafeta.tables.pool import Broken, Pool, Refused
from estafeta.tables.servers import Server, parse_server
from estafeta.tables.table import LookupFailed, OpenOptions, TableError
from estafeta.tables.tcp import decode, encode
from estafeta.tables.template import Template


@given(st.text(max_size=30), st.text(max_size=30))
def test_templates(text: str, key: str) -> None:
    with suppress(TableError):
        Template(text, "x.cf").expand(key, key)


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"]), max_size=40))
def test_quoting(text: str) -> None:
    """What a key becomes in a filter is one value again, the key."""
    tag, body, _ = ldap.read_element(ldap.parse_filter(f"(mail={ldap.quote_filter(text)})"))
    assert tag == 0xA3
    _, _, at = ldap.read_element(body)
    assert ldap.read_element(body, at)[1] == text.encode()
    assert decode(encode(text)) == text.encode()
    assert not set(encode(text)) & set(b" \t\r\n")


@given(st.binary(max_size=60))
def test_ldap_garbage(data: bytes) -> None:
    for read in (ldap.read_message, ldap.read_entry, ldap.read_result):
        with suppress(ldap.Malformed):
            read(data)


@given(st.text(alphabet="()&|!=*~<>:\\ab0 ", max_size=40))
def test_filters(text: str) -> None:
    with suppress(ldap.Malformed):
        ldap.parse_filter(text)
    with suppress(ldap.Malformed):
        ldap.parse_url("ldap:///" + text)


def test_known_answers() -> None:
    assert ldap.quote_name(' a,b+"c\\#') == '\\ a\\,b\\+\\"c\\\\#'
    assert len(native_password(b"secret", b"x" * 20)) == 20
    # RFC 7677, section 3 (there with a user name, which PostgreSQL leaves empty)
    scram = Scram("pencil", "rOprNGfwEbeRWgbNEkqO")
    assert scram.first() == b"n,,n=,r=rOprNGfwEbeRWgbNEkqO"
    assert scram.second(b"r=rOprNGfwEbeRWgbNEkqO%hvYDp,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").startswith(b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDp,p=")
    with pytest.raises(Broken):
        scram.check(b"v=AAAA")


@pytest.mark.parametrize(
    ("text", "server"),
    [("unix:/a/b", Server(path="/a/b")), ("inet:h:12", Server("", "h", 12)), ("h", Server("", "h", 99)), ("[::1]:5", Server("", "::1", 5))],
)
def test_servers(text: str, server: Server) -> None:
    assert parse_server(text, 99) == server


@pytest.mark.parametrize("text", ["h:0", "h:99999", "h:", ":1", "unix:"])
def test_wrong_servers(text: str) -> None:
    with pytest.raises(TableError):
        parse_server(text, 99)


class _Echo:
    closed = 0

    def __init__(self, answers: list[object]) -> None:
        self.answers = answers

    async def ask(self, request: str) -> str:
        answer = self.answers.pop(0) if self.answers else request
        if isinstance(answer, float):
            await asyncio.sleep(answer)
        if isinstance(answer, Exception):
            raise answer
        return request

    def close(self) -> None:
        _Echo.closed += 1


def _pool(plans: dict[str, list[list[object] | Exception]], tried: list[str], **how: object) -> Pool[str, str]:
    async def connect(server: Server) -> _Echo:
        tried.append(server.host)
        plan = plans[server.host].pop(0) if plans[server.host] else []
        if isinstance(plan, Exception):
            raise plan
        return _Echo(plan)

    servers = [Server("", host, 1) for host in plans]
    return Pool("t:x", servers, connect, warn=lambda text: None, in_order=True, **{"time_limit_s": 5.0, **how})  # type: ignore[arg-type]


def test_pool_goes_to_the_next_server_and_back() -> None:
    async def scenario() -> None:
        tried: list[str] = []
        pool = _pool({"a": [ConnectionRefusedError(), []], "b": [[None, Broken("gone")], ConnectionRefusedError()]}, tried)
        assert await pool.ask("1") == "1" and tried == ["a", "b"]
        # b's kept connection is dead and b is gone; a is left alone for now
        with pytest.raises(LookupFailed):
            await pool.ask("2")
        with pytest.raises(LookupFailed, match="all have failed"):
            await pool.ask("3")
        assert tried == ["a", "b", "b"]
        await asyncio.sleep(0.6)
        assert await pool.ask("4") == "4" and tried[-1] == "a"
        assert await pool.ask("5") == "5" and len(tried) == 4
        pool.close()

    asyncio.run(scenario())


def test_pool_refused_keeps_the_connection() -> None:
    async def scenario() -> None:
        tried: list[str] = []
        pool = _pool({"a": [[Refused("syntax"), None]]}, tried)
        with pytest.raises(LookupFailed, match="syntax"):
            await pool.ask("1")
        assert await pool.ask("2") == "2" and tried == ["a"]
        pool.close()

    asyncio.run(scenario())


def test_pool_is_bounded_in_time_and_size() -> None:
    async def scenario() -> None:
        tried: list[str] = []
        pool = _pool({"a": [[9.0], [9.0]]}, tried, time_limit_s=0.2, size=2)
        started = asyncio.get_running_loop().time()
        outcomes = await asyncio.gather(*(pool.ask(str(n)) for n in range(10)), return_exceptions=True)
        assert asyncio.get_running_loop().time() - started < 2
        assert all(isinstance(outcome, LookupFailed) for outcome in outcomes) and len(tried) == 2
        pool.close()

    asyncio.run(scenario())


def test_a_command_sees_that_it_has_to_wait() -> None:
    table = open_table("tcp:127.0.0.1:9")
    with pytest.raises(WouldWait):
        run_now(table.lookup("k"))


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=1, max_size=80), st.sampled_from(["mysql", "pgsql", "ldap", "memcache", "tcp", "socketmap"]))
def test_whatever_a_server_sends(tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: str) -> None:
    """An answer or LookupFailed, soon."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        with suppress(OSError):
            await writer.drain()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        file: Path = tmp_path_factory.mktemp("cf") / "x.cf"
        file.write_text(  # noqa: ASYNC240
            f"hosts = 127.0.0.1:{port}\nuser = u\ndbname = d\nquery = SELECT '%s'\nserver_host = 127.0.0.1:{port}\n"
            f"memcache = 127.0.0.1:{port}\nmax_try = 1\n"
        )
        name = {"tcp": f"127.0.0.1:{port}", "socketmap": f"inet:127.0.0.1:{port}:n"}.get(kind, str(file))
        table = open_table(f"{kind}:{name}", OpenOptions(warn=lambda text: None))
        with suppress(LookupFailed):
            await asyncio.wait_for(table.lookup("key"), 5)
        table.close()
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


def test_missing_parameters(tmp_path: Path) -> None:
    file = tmp_path / "x.cf"
    file.write_text("hosts = h\n")
    for kind, missing in (("mysql", "dbname"), ("pgsql", "dbname"), ("sqlite", "dbpath")):
        with pytest.raises(TableError, match=f"bad string length 0 < 1: {missing} = "):
            open_table(f"{kind}:{file}")
        with pytest.raises(TableError, match=f"bad string length 0 < 1: name_{missing} = "):
            open_table(f"{kind}:name")

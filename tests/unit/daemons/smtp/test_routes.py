"""Destinations that need DNS: mail exchangers in order, limits, loops, failures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from estafeta.daemons.smtp.trouble import Peer
from estafeta.dns.resolver import Resolver
from support.dns_server import DnsServer
from support.smtp_agent import Agent, outcomes
from support.smtp_sink import SmtpSink

Drive = Callable[..., None]

ZONES = {
    "d.example": {"MX": ["10 one.example", "20 two.example", "30 three.example"]},
    "one.example": {"A": ["127.0.0.1"]},
    "two.example": {"A": ["127.0.0.2"]},
    "three.example": {"A": ["127.0.0.3"]},
    "null.example": {"MX": ["0 ."]},
    "broken.example": "SERVFAIL",
}


def _use_dns(agent: Agent, server: DnsServer, directory: Path) -> None:
    (directory / "resolv.conf").write_text(f"nameserver {server.address}\n")
    (directory / "hosts").write_text("")
    resolver = Resolver(
        str(directory / "resolv.conf"), str(directory / "hosts"), port=server.port, hostname="me.example", timeout_s=5
    )
    resolver.preload()
    agent.smtp.resolver = resolver


def test_exchangers_in_order_and_reuse_by_address(drive: Drive, tmp_path: Path) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink({"GREETING": "421 busy"}) as one, SmtpSink(host="127.0.0.2", port=one.port) as two:
            with DnsServer(ZONES) as server:
                _use_dns(agent, server, tmp_path)
                reply = await agent.deliver(f"d.example:{one.port}")
                assert outcomes(reply)[0][1] == "sent"
                assert f"relay=two.example[127.0.0.2]:{one.port}, " in agent.lines[-1]
                assert agent.lines[0] == "Q1: host one.example[127.0.0.1] refused to talk to me: 421 busy"
                assert Peer("two.example", "127.0.0.2", one.port) in {s.peer for s in agent.smtp.cache.idle_sessions()}
                await agent.deliver(f"[two.example]:{one.port}")
                assert "conn_use=2" in agent.lines[-1]
                assert len(two.sessions) == 1

    drive(test, smtp_connection_cache_destinations="d.example")


def test_mx_session_limit(drive: Drive, tmp_path: Path) -> None:
    async def test(agent: Agent) -> None:
        later = {"MAIL": "451 4.3.0 later"}
        async with (
            SmtpSink(dict(later)) as one,
            SmtpSink(dict(later), host="127.0.0.2", port=one.port) as two,
            SmtpSink(host="127.0.0.3", port=one.port) as three,
        ):
            with DnsServer(ZONES) as server:
                _use_dns(agent, server, tmp_path)
                reply = await agent.deliver(f"d.example:{one.port}")
            assert outcomes(reply)[0][1] == "deferred"
            assert (len(one.sessions), len(two.sessions), len(three.sessions)) == (1, 1, 0)

    drive(test)


@pytest.mark.parametrize(
    ("nexthop", "status", "dsn", "text", "dead"),
    [
        ("null.example", "bounced", "5.1.0", "Domain null.example does not accept mail (nullMX)", False),
        ("nobody.example", "bounced", "5.4.4", "Host or domain name not found. Name service error", False),
        ("broken.example", "deferred", "4.4.3", "Host or domain name not found. Name service error", True),
        ("[127.0.0.1", "deferred", "4.3.5", 'missing "]"', True),
    ],
)
def test_no_route(drive: Drive, tmp_path: Path, nexthop: str, status: str, dsn: str, text: str, dead: bool) -> None:
    async def test(agent: Agent) -> None:
        with DnsServer(ZONES) as server:
            _use_dns(agent, server, tmp_path)
            reply = await agent.deliver(nexthop)
        ((_, got_status, got_dsn, got_text),) = outcomes(reply)
        assert (got_status, got_dsn) == (status, dsn)
        assert text in got_text
        assert bool(reply.site_dead) is dead
        assert "relay=none, " in agent.lines[-1]

    drive(test)

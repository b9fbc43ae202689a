"""dane and dane-only: nothing validated means may, or waiting; validated TLSA records, or no answer about them, mean waiting."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from estafeta.daemons.smtp.dane import effective_policy
from estafeta.daemons.smtp.trouble import Peer, Trouble
from estafeta.dns.resolver import Resolver
from estafeta.tls.policy import ClientPolicy
from support.dns_server import DnsServer

TLSA = "3 1 1 " + "ab" * 32
ZONES: dict[str, Any] = {
    "mx.plain.test": {"A": ["127.0.0.9"]},
    "mx.dane.test": {"A": ["127.0.0.9"]},
    "_25._tcp.mx.dane.test": {"TLSA": [TLSA]},
    "mx.alias.test": {"CNAME": ["mx.dane.test"]},
    "mx.broken.test": {"A": ["127.0.0.9"]},
    "_25._tcp.mx.broken.test": "SERVFAIL",
    "mx.failing.test": "SERVFAIL",
}


def _ask(tmp_path: Path, host: str, level: str, *, authentic: bool, port: int = 25) -> str:
    with DnsServer(ZONES, authentic=authentic) as server:
        conf = tmp_path / "resolv.conf"
        conf.write_text("nameserver 127.0.0.1\noptions attempts:1\n")

        async def run() -> ClientPolicy | Trouble:
            resolver = Resolver(resolv_conf=conf, hosts_file=tmp_path / "hosts", port=server.port, timeout_s=1)
            try:
                return await effective_policy(resolver, ClientPolicy(level), Peer(host, "127.0.0.9", port))
            finally:
                resolver.close()

        found = asyncio.run(run())
    return found.level if isinstance(found, ClientPolicy) else f"{found.dsn} {found.text}"


@pytest.mark.parametrize("host", ["mx.plain.test", "mx.dane.test", "mx.alias.test", "mx.missing.test", "127.0.0.9", "mx.broken.test"])
def test_without_validation(tmp_path: Path, host: str) -> None:
    assert _ask(tmp_path, host, "dane", authentic=False) == "may"
    assert _ask(tmp_path, host, "dane-only", authentic=False) == "4.7.5 no TLSA records found"


@pytest.mark.parametrize("level", ["dane", "dane-only"])
@pytest.mark.parametrize("host", ["mx.dane.test", "mx.alias.test"])
def test_validated_records_keep_the_mail_here(tmp_path: Path, level: str, host: str) -> None:
    assert _ask(tmp_path, host, level, authentic=True).startswith("4.7.5 TLSA records found")


def test_validated_absence(tmp_path: Path) -> None:
    assert _ask(tmp_path, "mx.plain.test", "dane", authentic=True) == "may"
    assert _ask(tmp_path, "mx.dane.test", "dane", authentic=True, port=587) == "may"
    assert _ask(tmp_path, "mx.plain.test", "dane-only", authentic=True) == "4.7.5 no TLSA records found"


@pytest.mark.parametrize("host", ["mx.broken.test", "mx.failing.test"])
def test_no_answer_is_no_absence(tmp_path: Path, host: str) -> None:
    assert _ask(tmp_path, host, "dane", authentic=True) == f"4.7.5 TLSA lookup error for {host}:25"

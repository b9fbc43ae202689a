"""A resolver that asks a DNS server of the test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from estafeta.dns.resolver import Resolver

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

from support.dns_server import DnsServer


@pytest.fixture
def make_resolver(tmp_path: Path) -> Callable[..., Resolver]:
    """Return a factory: (server, options line of resolv.conf, hosts text) to a preloaded resolver."""

    def make(server: DnsServer, conf: str = "", hosts: str = "", **arguments: Any) -> Resolver:
        resolv_conf = tmp_path / "resolv.conf"
        resolv_conf.write_text(f"nameserver {server.address}\n{conf}\n")
        hosts_file = tmp_path / "hosts"
        hosts_file.write_text(hosts)
        arguments.setdefault("timeout_s", 5)
        resolver = Resolver(str(resolv_conf), str(hosts_file), port=server.port, hostname="me.test", **arguments)
        resolver.preload()
        return resolver

    return make

"""Where mail goes and why not: Postfix's smtp(8) and our ``route`` with the same zones, in a network of their own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"
sys.path.insert(0, str(SUPPORT))

from dns_server import DnsServer  # noqa: E402
from route_zones import ZONES  # noqa: E402

from estafeta.dns.mx import RouteFailure, RouteOptions, route  # noqa: E402
from estafeta.dns.resolver import Resolver  # noqa: E402

NEXTHOPS = [
    *(name for name in ZONES if name not in ("many.test", "two.test", "both.test", "xn--and-6ma2c.test")),
    *("nonexist.test", "[nonexist.test]", "[servfail.test]", "[nodata.test]", "[me.test]", "[127.0.0.1]", "127.0.0.1"),
    *("[me.test]:2525", "[good.test]:2525", "good.test:smtp", "127.0.0.9", "[ipv6:::1]"),
]  # fmt: skip

MAIN_CF = """\
compatibility_level = 3.6
queue_directory = {base}/spool
data_directory = {base}/data
myhostname = me.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = all
maillog_file = {base}/log
maillog_file_prefixes = {base}
alias_maps =
notify_classes =
smtp_connect_timeout = 1s
transport_maps = inline:{{ {routes} }}
"""

MASTER_CF = """\
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
"""

SCRIPT = """\
ip link set lo up
mount --bind {base}/resolv.conf /etc/resolv.conf || exit 1
{python} {support}/dns_server.py --port 53 {base}/zones.json > {base}/dns.out & DNS=$!
until grep -q ready {base}/dns.out; do sleep 0.05; done
postfix -c {base}/etc start > {base}/start.out 2>&1 || {{ kill $DNS; exit 1; }}
for n in $(seq {count}); do
    echo | sendmail -C {base}/etc -f '' -i x@n$n.route
done
for turn in $(seq 100); do
    [ "$(grep -c 'to=<x@n' {base}/log)" -ge {count} ] && break
    sleep 0.2
done
postfix -c {base}/etc abort > {base}/stop.out 2>&1
kill $DNS
"""


def _missing() -> str | None:
    if not Path("/usr/sbin/postconf").exists():
        return "Postfix is not installed"
    if os.geteuid() != 0:
        return "only root can start Postfix in a network namespace"
    tools = ("unshare", "ip", "mount")
    if any(shutil.which(tool) is None for tool in tools):
        return "unshare, ip or mount is missing"
    if subprocess.run(["unshare", "-n", "-m", "true"], capture_output=True, check=False).returncode:
        return "network namespaces are not allowed here"
    return None


def postfix_verdicts(base: Path) -> dict[str, tuple[str, str]]:
    """Return (status, text) of Postfix for each next hop."""
    for name in ("etc", "spool", "data"):
        (base / name).mkdir()
    base.chmod(0o755)
    shutil.chown(base / "data", "postfix")
    routes = ", ".join(f"{{ n{n}.route = smtp:{hop} }}" for n, hop in enumerate(NEXTHOPS, 1))
    (base / "etc/main.cf").write_text(MAIN_CF.format(base=base, routes=routes))
    (base / "etc/master.cf").write_text(MASTER_CF)
    (base / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    (base / "zones.json").write_text(json.dumps(ZONES))
    script = SCRIPT.format(base=base, python=sys.executable, support=SUPPORT, count=len(NEXTHOPS))
    subprocess.run(["unshare", "-n", "-m", "sh", "-c", script], timeout=90, check=False, capture_output=True)
    verdicts = {}
    for number, dsn, text in re.findall(
        r"to=<x@n(\d+)\.route>.* dsn=([0-9.]+), status=\w+ \((.*)\)$", (base / "log").read_text(), re.MULTILINE
    ):
        verdicts[NEXTHOPS[int(number) - 1]] = (dsn, text)
    return verdicts


def our_verdicts(base: Path) -> dict[str, tuple[str, str]]:
    """Return what ``route`` says; nothing listens in Postfix's network, so the last address is refused."""

    async def main() -> dict[str, tuple[str, str]]:
        resolver = Resolver(str(base / "resolv.conf"), "/nonexistent", port=server.port, timeout_s=5)
        options = RouteOptions(own_addresses=frozenset({"127.0.0.1"}))
        verdicts = {}
        for nexthop in NEXTHOPS:
            found = await route(resolver, nexthop, 25, options=options)
            if isinstance(found, RouteFailure):
                verdicts[nexthop] = (found.dsn, found.text)
            else:
                last = found[-1]
                text = f"connect to {last.host}[{last.address}]:{last.port}: Connection refused"
                verdicts[nexthop] = ("4.4.1", text)
        return verdicts

    with DnsServer(ZONES) as server:
        return asyncio.run(main())


def test_the_same_verdicts() -> None:
    reason = _missing()
    if reason is not None:
        pytest.skip(reason)
    # Not tmp_path: Postfix's user must be able to enter the folders above.
    with tempfile.TemporaryDirectory(prefix="routes-") as folder:
        base = Path(folder)
        expected = postfix_verdicts(base)
        assert set(expected) == set(NEXTHOPS), (base / "log").read_text()[-2000:]
        assert our_verdicts(base) == expected

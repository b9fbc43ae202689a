"""Routing: the cases and texts were observed on Postfix 3.7's smtp(8) with the same zones."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from route_zones import ZONES

from estafeta.dns.mx import BadDestination, RouteFailure, RouteOptions, Target, parse_nexthop, route
from estafeta.dns.resolver import Resolver
from support.dns_server import DnsServer

Make = Callable[..., Resolver]

NOT_FOUND = "Host or domain name not found. Name service error for name="
OWN = frozenset({"127.0.0.1"})

FAILURES = {
    "null.test": ("5.1.0", "Domain null.test does not accept mail (nullMX)"),
    "mixnull.test": ("5.1.0", "Domain mixnull.test does not accept mail (nullMX)"),
    "nodata.test": (
        "5.4.4",
        f"{NOT_FOUND}nodata.test type=AAAA: Host found but no data record of requested type",
    ),
    "servfail.test": ("4.4.3", f"{NOT_FOUND}servfail.test type=MX: Host not found, try again"),
    "[servfail.test]": ("4.4.3", f"{NOT_FOUND}servfail.test type=AAAA: Host not found, try again"),
    "refused.test": ("4.4.3", f"{NOT_FOUND}refused.test type=MX: Host not found, try again"),
    "formerr.test": ("5.4.3", f"{NOT_FOUND}formerr.test type=MX: Non-recoverable error"),
    "badmx.test": ("5.4.4", f"{NOT_FOUND}nohost.test type=AAAA: Host not found"),
    "nodatamx.test": (
        "5.4.4",
        f"{NOT_FOUND}nodata.test type=AAAA: Host found but no data record of requested type",
    ),
    "failmx.test": ("4.4.3", f"{NOT_FOUND}servfail.test type=AAAA: Host not found, try again"),
    "mixmx.test": ("4.4.4", f"{NOT_FOUND}nohost.test type=AAAA: Host not found"),
    "mixmx2.test": ("4.4.3", f"{NOT_FOUND}servfail.test type=AAAA: Host not found, try again"),
    "selfmx.test": ("5.4.6", "mail for selfmx.test loops back to myself"),
    "selfaddr.test": ("5.4.6", "mail for selfaddr.test loops back to myself"),
    "backup.test": ("4.4.4", "unable to find primary relay for backup.test"),
    "selfa.test": ("5.4.6", "mail for selfa.test loops back to myself"),
    "[me.test]": ("5.4.6", "mail for me.test loops back to myself"),
    "127.0.0.1": ("5.4.6", "mail for 127.0.0.1 loops back to myself"),
    "[127.0.0.1]": ("5.4.6", "mail for 127.0.0.1 loops back to myself"),
    "malformed.test": (
        "5.4.4",
        "Name service error for name=malformed.test type=MX: Malformed or unexpected name server reply",
    ),
    "nonexist.test": ("5.4.4", f"{NOT_FOUND}nonexist.test type=AAAA: Host not found"),
    "[nonexist.test]": ("5.4.4", f"{NOT_FOUND}nonexist.test type=AAAA: Host not found"),
    "a..b": ("4.3.5", "valid hostname or network address required in server description: a..b"),
    "[1.2.3.4.5]": ("4.3.5", "valid hostname or network address required in server description: [1.2.3.4.5]"),
    "[good.test": ("4.3.5", 'missing "]" in server description: [good.test'),
    "good.test:99999": ("4.3.5", "bad network port: 99999 for destination: good.test:99999"),
    "[good.test]:nosuch": ("4.3.5", "unknown service: nosuch/tcp"),
}


def run(make: Make, nexthop: str, seed: int = 1, **options: Any) -> list[Target] | RouteFailure:
    options.setdefault("own_addresses", OWN)

    async def main() -> list[Target] | RouteFailure:
        resolver = make(server, "options attempts:1", hosts="127.0.0.99 inhosts.test\n")
        return await route(resolver, nexthop, 25, options=RouteOptions(**options), rng=random.Random(seed))

    with DnsServer(ZONES) as server:
        return asyncio.run(main())


@pytest.mark.parametrize("nexthop", FAILURES)
def test_failures_as_postfix_says_them(make_resolver: Make, nexthop: str) -> None:
    failure = run(make_resolver, nexthop)
    assert isinstance(failure, RouteFailure)
    assert (failure.dsn, failure.text) == FAILURES[nexthop]
    assert failure.temporary is failure.dsn.startswith("4")


@pytest.mark.parametrize(
    ("nexthop", "expected"),
    [
        ("good.test", [Target("good.test", "127.0.0.9", 25)]),
        ("[good.test]:2525", [Target("good.test", "127.0.0.9", 2525)]),
        ("good.test:submission", [Target("good.test", "127.0.0.9", 587)]),
        ("127.0.0.9", [Target("127.0.0.9", "127.0.0.9", 25)]),
        ("[me.test]:2525", [Target("me.test", "127.0.0.1", 2525)]),
        ("selfmx.test:2525", [Target("me.test", "127.0.0.1", 2525, 10)]),
        ("[ipv6:::5]", [Target("::5", "::5", 25)]),
        ("[::5]:26", [Target("::5", "::5", 26)]),
        ("relay.test", [Target("good.test", "127.0.0.9", 25, 10)]),
        ("numericmx.test", [Target("127.0.0.9", "127.0.0.9", 25, 10)]),
        ("ñandú.test", [Target("xn--and-6ma2c.test", "127.0.0.30", 25)]),
    ],
)
def test_targets(make_resolver: Make, nexthop: str, expected: list[Target]) -> None:
    assert run(make_resolver, nexthop) == expected


def test_native_lookups_and_their_words(make_resolver: Make) -> None:
    native = {"host_lookup": ("native",)}
    assert run(make_resolver, "[inhosts.test]", **native) == [Target("inhosts.test", "127.0.0.99", 25)]
    for nexthop, dsn, text in (
        ("[nohost.test]", "5.4.4", "unable to look up host nohost.test: Name or service not known"),
        ("nodatamx.test", "5.3.0", "unable to look up host nodata.test: No address associated with hostname"),
        (
            "[servfail.test]",
            "4.4.4",
            "unable to look up host servfail.test: Temporary failure in name resolution",
        ),
    ):
        failure = run(make_resolver, nexthop, **native)
        assert isinstance(failure, RouteFailure)
        assert (failure.dsn, failure.text) == (dsn, text)


def test_options_that_change_the_verdict(make_resolver: Make) -> None:
    failure = run(make_resolver, "badmx.test", defer_if_no_mx_address_found=True)
    assert isinstance(failure, RouteFailure)
    assert (failure.dsn, failure.temporary) == ("4.4.4", True)
    assert failure.warnings == ("no MX host for badmx.test has a valid address record",)
    failure = run(make_resolver, "servfail.test", ignore_mx_lookup_error=True)
    assert isinstance(failure, RouteFailure)
    assert "type=AAAA" in failure.text
    failure = run(make_resolver, "[::1]", families=("ipv4",))
    assert failure == RouteFailure("5.4.4", "Name service error for ::1: invalid host or domain name", False)
    failure = run(make_resolver, "nonexist.test", families=("ipv4",))
    assert isinstance(failure, RouteFailure)
    assert failure.text.endswith("type=A: Host not found")


def test_order_by_preference_then_chance_or_family(make_resolver: Make) -> None:
    seen: Counter[tuple[str, ...]] = Counter()
    for seed in range(12):
        targets = run(make_resolver, "two.test", seed)
        assert isinstance(targets, list)
        assert [target.preference for target in targets] == [5, 5, 10, 10]
        seen[tuple(target.address for target in targets)] += 1
    assert len(seen) > 1
    for preference, first in (("ipv4", "127.0.0.20"), ("ipv6", "::20")):
        for seed in range(4):
            targets = run(make_resolver, "two.test", seed, address_preference=preference)
            assert isinstance(targets, list)
            assert targets[0].address == first


def test_limit_keeps_both_families(make_resolver: Make) -> None:
    for seed in range(6):
        targets = run(make_resolver, "many.test", seed, address_preference="ipv6")
        assert isinstance(targets, list)
        assert len(targets) == 5
        assert sum(":" in target.address for target in targets) == 3
        targets = run(make_resolver, "many.test", seed, address_preference="ipv6", balance_inet_protocols=False)
        assert isinstance(targets, list)
        assert sum(":" in target.address for target in targets) == 5
    targets = run(make_resolver, "many.test", mx_address_limit=0)
    assert isinstance(targets, list)
    assert len(targets) == 11


@given(st.text(max_size=30) | st.from_regex(r"\[?[a-z0-9.:-]{0,12}\]?(:[a-z0-9]{0,6})?", fullmatch=True))
def test_any_text_is_a_destination_or_the_one_error(text: str) -> None:
    try:
        host, port, _ = parse_nexthop(text, 25)
    except BadDestination:
        return
    assert host
    assert 0 < port < 65536

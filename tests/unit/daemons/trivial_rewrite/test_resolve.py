"""Routes: transport(5), ADDRESS_CLASS_README, relayhost and what depends on the sender, odd addresses."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.config.config import default_config
from estafeta.config.rewrite_rules import rewrite_rules
from estafeta.daemons.trivial_rewrite.resolve import Resolver
from estafeta.ipc.messages import AddressClass, Route
from estafeta.mail.rewrite import to_standard_form
from estafeta.tables.table import OpenOptions

BASE = {
    "myhostname": "host.here.example",
    "mydomain": "here.example",
    "mydestination": "$myhostname, local.example",
    "virtual_alias_domains": "alias.example",
    "virtual_mailbox_domains": "box.example",
    "relay_domains": "relayed.example",
    "recipient_delimiter": "+",
}


SD = "sender_dependent_relayhost_maps"
SDT = "sender_dependent_default_transport_maps"


def resolver(**parameters: str) -> Resolver:
    config = default_config().with_overrides({**BASE, **parameters}.items())
    options = OpenOptions(warn=lambda _: None, utf8=True)
    return Resolver(config, options, own_addresses=frozenset({"127.0.0.1", "::1"}))


def route(address: str, sender: str = "s@sender.example", **parameters: str) -> tuple[str, str]:
    found = asyncio.run(resolver(**parameters).resolve(address.encode(), sender.encode()))
    assert not found.failed
    return found.transport, found.nexthop


@pytest.mark.parametrize(
    ("address", "transport", "nexthop", "kind", "recipient"),
    [
        ("u@local.example", "local", "host.here.example", AddressClass.LOCAL, ""),
        ("u@LOCAL.example", "local", "host.here.example", AddressClass.LOCAL, ""),
        ("u@host.here.example", "local", "host.here.example", AddressClass.LOCAL, ""),
        ("u@[127.0.0.1]", "local", "host.here.example", AddressClass.LOCAL, ""),
        ("u@[ipv6:::1]", "local", "host.here.example", AddressClass.LOCAL, ""),
        ("u@[127.0.0.9]", "smtp", "[127.0.0.9]", AddressClass.DEFAULT, ""),
        ("u", "local", "host.here.example", AddressClass.LOCAL, "u@host.here.example"),
        ("u@box.example", "virtual", "box.example", AddressClass.VIRTUAL_MAILBOX, ""),
        ("u@alias.example", "error", "5.1.1 User unknown in virtual alias table", AddressClass.VIRTUAL_ALIAS, ""),
        ("u@relayed.example", "relay", "relayed.example", AddressClass.RELAY, ""),
        ("u@sub.relayed.example", "relay", "sub.relayed.example", AddressClass.RELAY, ""),
        ("u@other.example", "smtp", "other.example", AddressClass.DEFAULT, ""),
        ("u@other.example.", "smtp", "other.example", AddressClass.DEFAULT, "u@other.example"),
        ("u%other.example@local.example", "smtp", "other.example", AddressClass.DEFAULT, "u@other.example"),
        ("other.example!u@local.example", "smtp", "other.example", AddressClass.DEFAULT, "u@other.example"),
        ("u%x.example%y.example@local.example", "smtp", "y.example", AddressClass.DEFAULT, "u%x.example@y.example"),
        ("u%other.example@elsewhere.example", "smtp", "elsewhere.example", AddressClass.DEFAULT, ""),
        ("u@other.example@local.example", "smtp", "other.example", AddressClass.DEFAULT, "u@other.example"),
        ("", "local", "host.here.example", AddressClass.LOCAL, "MAILER-DAEMON@host.here.example"),
        ("@local.example", "local", "host.here.example", AddressClass.LOCAL, "MAILER-DAEMON@local.example"),
    ],
)
def test_classes(address: str, transport: str, nexthop: str, kind: AddressClass, recipient: str) -> None:
    found = asyncio.run(resolver().resolve(address.encode(), b"s@sender.example"))
    got = (found.transport, found.nexthop, found.address_class, found.recipient.decode(), found.failed)
    assert got == (transport, nexthop, kind, recipient or address, False)


@pytest.mark.parametrize(
    ("parameters", "address", "expected"),
    [
        ({"relayhost": "[gw]:25"}, "u@other.example", ("smtp", "[gw]:25")),
        ({"relayhost": "[gw]:25"}, "u@relayed.example", ("relay", "[gw]:25")),
        ({"relayhost": "[gw]:25"}, "u@local.example", ("local", "host.here.example")),
        ({"relayhost": "[gw]"}, "u@box.example", ("virtual", "box.example")),
        ({"default_transport": "smtp:[dt]", "relayhost": "[gw]"}, "u@other.example", ("smtp", "[dt]")),
        ({"relay_transport": "lmtp:unix:x", "relayhost": "[gw]"}, "u@relayed.example", ("lmtp", "unix:x")),
        ({"local_transport": "lmtp:unix:x"}, "u@local.example", ("lmtp", "unix:x")),
        ({"virtual_transport": "lmtp:unix:x"}, "u@box.example", ("lmtp", "unix:x")),
        ({SD: "inline:{ s@sender.example=[sd] }", "relayhost": "[gw]"}, "u@o.example", ("smtp", "[sd]")),
        ({SD: "inline:{ @sender.example=[sd] }", "relayhost": "[gw]"}, "u@o.example", ("smtp", "[sd]")),
        ({SD: "inline:{ x@sender.example=[sd] }", "relayhost": "[gw]"}, "u@o.example", ("smtp", "[gw]")),
        ({SD: "inline:{ s@sender.example=DUNNO }", "relayhost": "[gw]"}, "u@o.example", ("smtp", "[gw]")),
        ({SD: "inline:{ s@sender.example=[sd] }"}, "u@relayed.example", ("relay", "[sd]")),
        ({SD: "inline:{ s@sender.example=[sd] }"}, "u@local.example", ("local", "host.here.example")),
        ({SDT: "inline:{ s@sender.example=slow }"}, "u@o.example", ("slow", "o.example")),
        ({SDT: "inline:{ { s@sender.example=slow:[n] } }"}, "u@o.example", ("slow", "[n]")),
        ({SDT: "inline:{ s@sender.example=slow }"}, "u@relayed.example", ("relay", "relayed.example")),
    ],
)  # fmt: skip
def test_relayhost_and_senders(parameters: dict[str, str], address: str, expected: tuple[str, str]) -> None:
    assert route(address, **parameters) == expected


def test_the_null_sender_has_a_key() -> None:
    parameters = {SD: "inline:{ <>=[null] }"}
    assert route("u@o.example", "", **parameters) == ("smtp", "[null]")
    assert route("u@o.example", "x@y.example", **parameters) == ("smtp", "o.example")


TRANSPORT = (
    "inline:{ u@one.example=user:, one.example=dom:[d], .one.example=sub:, { plus+x@two.example = ext:[e] }, plus@two.example=plain:, "
    "three.example=:[only-hop], four.example=:, five.example=error:, { six.example = error:5.7.1 go away }, "
    "local.example=lt:, box.example=:[bx] }"
)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("u@one.example", ("user", "one.example")),
        ("v@one.example", ("dom", "[d]")),
        ("v@a.one.example", ("sub", "a.one.example")),
        ("v@a.b.one.example", ("sub", "a.b.one.example")),
        ("v@xone.example", ("smtp", "xone.example")),
        ("plus+x@two.example", ("ext", "[e]")),
        ("plus+y@two.example", ("plain", "two.example")),
        ("plus@two.example", ("plain", "two.example")),
        ("u@three.example", ("smtp", "[only-hop]")),
        ("u@four.example", ("smtp", "four.example")),
        ("u@five.example", ("error", "Address is undeliverable")),
        ("u@six.example", ("error", "5.7.1 go away")),
        ("u@local.example", ("lt", "local.example")),
        ("u@box.example", ("virtual", "[bx]")),
        ("u@seven.example", ("smtp", "seven.example")),
    ],
)
def test_transport_table(address: str, expected: tuple[str, str]) -> None:
    assert route(address, transport_maps=TRANSPORT) == expected


def test_transport_table_star_and_relayhost() -> None:
    maps = "inline:{ { * = slow:[everything] }, four.example=: }"
    assert route("u@x.example", transport_maps=maps, relayhost="[gw]") == ("slow", "[everything]")
    assert route("u@four.example", transport_maps=maps, relayhost="[gw]") == ("smtp", "[gw]")
    assert route("u@local.example", transport_maps=maps) == ("slow", "[everything]")


def test_transport_table_with_parents() -> None:
    maps = "inline:{ one.example=dom:, .two.example=sub: }"
    parents = "transport_maps"
    assert route("u@a.one.example", transport_maps=maps, parent_domain_matches_subdomains=parents) == ("dom", "a.one.example")
    assert route("u@a.one.example", transport_maps=maps, parent_domain_matches_subdomains="") == ("smtp", "a.one.example")
    assert route("u@a.two.example", transport_maps=maps, parent_domain_matches_subdomains="") == ("sub", "a.two.example")


def test_relocated() -> None:
    maps = "inline:{ { u@local.example = new@home.example }, { @gone.example = elsewhere }, { bare = x@y.example } }"
    assert route("u@local.example", relocated_maps=maps) == ("error", "5.1.6 User has moved to new@home.example")
    assert route("x@gone.example", relocated_maps=maps) == ("error", "5.1.6 User has moved to elsewhere")
    assert route("bare@local.example", relocated_maps=maps) == ("error", "5.1.6 User has moved to x@y.example")
    assert route("bare@other.example", relocated_maps=maps) == ("smtp", "other.example")


@pytest.mark.parametrize("parameter", ["transport_maps", "relocated_maps", SD, "mydestination"])
def test_a_table_that_cannot_be_asked(parameter: str) -> None:
    found = asyncio.run(resolver(**{parameter: "fail:broken"}).resolve(b"u@o.example", b"s@sender.example"))
    assert found.failed


@given(st.binary(max_size=40), st.binary(max_size=20))
def test_every_address_has_a_route(address: bytes, sender: bytes) -> None:
    found = asyncio.run(_RESOLVER.resolve(address, sender))
    assert isinstance(found, Route) and found.transport and found.nexthop and b"@" in found.recipient


_RESOLVER = resolver(transport_maps=TRANSPORT)


@pytest.mark.parametrize(
    ("address", "expected", "parameters"),
    [
        ("u", "u@host.here.example", {}),
        ("u", "u", {"append_at_myorigin": "no"}),
        ("u@pc", "u@pc.here.example", {"append_dot_mydomain": "yes"}),
        ("u@pc", "u@pc", {"append_dot_mydomain": "no"}),
        ("u@pc.", "u@pc", {"append_dot_mydomain": "yes"}),
        ("u@[10.0.0.1]", "u@[10.0.0.1]", {"append_dot_mydomain": "yes"}),
        ("site!u", "u@site", {"append_dot_mydomain": "no"}),
        ("a!b!u", "b!u@a", {"append_dot_mydomain": "no"}),
        ("site!u", "site!u@host.here.example", {"swap_bangpath": "no"}),
        ("u%h.example", "u@h.example", {}),
        ("u%a%h.example", "u%a@h.example", {}),
        ("u%h.example", "u%h.example@host.here.example", {"allow_percent_hack": "no"}),
        ("u%h@d.example", "u%h@d.example", {}),
        ("", "", {}),
        ("u@", "u@host.here.example", {}),
    ],
)
def test_standard_form(address: str, expected: str, parameters: dict[str, str]) -> None:
    rules = rewrite_rules(default_config().with_overrides({**BASE, **parameters}.items()))
    assert to_standard_form(rules, address.encode()).decode() == expected


@pytest.mark.parametrize(
    ("address", "domain", "expected"),
    [
        ("u", "", "u"),
        ("u@pc", "", "u@pc"),
        ("u", "remote.invalid", "u@remote.invalid"),
        ("u@pc", "remote.invalid", "u@pc.remote.invalid"),
        ("u@x.example", "remote.invalid", "u@x.example"),
    ],
)
def test_standard_form_of_remote_headers(address: str, domain: str, expected: str) -> None:
    rules = rewrite_rules(default_config().with_overrides({**BASE, "remote_header_rewrite_domain": domain}.items()))
    assert to_standard_form(rules, address.encode(), remote=True).decode() == expected


@given(st.binary(max_size=60))
def test_the_standard_form_is_stable(address: bytes) -> None:
    rules = rewrite_rules(default_config().with_overrides(BASE.items()))
    once = to_standard_form(rules, address)
    if once and not once.endswith(b".") and b"@" in once[:-1]:
        assert to_standard_form(rules, once).rpartition(b"@")[0] == once.rpartition(b"@")[0]

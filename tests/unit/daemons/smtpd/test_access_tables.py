"""access(5): the keys that are asked for and their order; every action; statuses; DNS list filters; classes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from test_access import Door, door

from estafeta.config.errors import ConfigError
from estafeta.daemons.smtpd.access.blocklist import BadFilter, fill, matches, parse_filter, reversed_address
from estafeta.daemons.smtpd.access.delegated import xtext
from estafeta.daemons.smtpd.access.verdict import (
    Facts,
    Verdict,
    fixed_status,
    literal_address,
    scene_for,
    split_status,
)
from estafeta.tables.maps import Maps

MAIL: dict[str, Any] = {"sender": b"s@x.example", "recipient": b"joe@local.example"}


class Asked:
    """A table that writes down the keys it is asked for, and knows none."""

    name = "asked:"
    is_pattern = False

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def lookup(self, key: str) -> str | None:
        self.keys.append(key)
        return None

    def close(self) -> None:
        pass


def keys(restriction: str, facts: Facts, **parameters: str) -> list[str]:
    """The keys that a restriction asks for when it finds nothing."""
    made = Door(smtpd_recipient_restrictions=f"{restriction} inline:{{x=y}}", **parameters)
    table = Asked()
    maps: Maps = made.access._tools.maps("inline:{x=y}")
    maps.tables = [table]
    asyncio.run(made.access.check("recipient", facts, made.soft.append))
    return table.keys


def facts(**more: Any) -> Facts:
    return Facts("a.b.example", "192.0.2.7", **more)


@pytest.mark.parametrize(
    ("restriction", "more", "expected"),
    [
        ("check_client_access", {}, ["a.b.example", "b.example", "example", "192.0.2.7", "192.0.2", "192.0", "192"]),
        ("check_helo_access", {"helo": "m.n.example"}, ["m.n.example", "n.example", "example"]),
        ("check_sender_access", {"sender": b""}, ["<>"]),
        ("check_sender_access", {"sender": b"u+e@d.far.example"},
         ["u+e@d.far.example", "u@d.far.example", "d.far.example", "far.example", "example", "u+e@", "u@"]),
        ("check_recipient_access", {"recipient": b"u@far.example"}, ["u@far.example", "far.example", "example", "u@"]),
        ("check_sasl_access", {"sasl_username": "joe"}, ["joe"]),
        ("check_ccert_access", {"ccert_fingerprint": "AA:BB", "ccert_pubkey_fingerprint": "CC:DD"}, ["aa:bb", "cc:dd"]),
        ("check_etrn_access", {"etrn_domain": "d.example"}, ["d.example", "example"]),
        ("check_reverse_client_hostname_access", {"reverse_name": "r.example"},
         ["r.example", "example", "192.0.2.7", "192.0.2", "192.0", "192"]),
    ],
)  # fmt: skip
def test_keys(restriction: str, more: dict[str, Any], expected: list[str]) -> None:
    found = keys(restriction, facts(**more), recipient_delimiter="+", parent_domain_matches_subdomains="smtpd_access_maps")
    assert [key.lower() for key in found] == expected


def test_keys_with_dots() -> None:
    found = keys("check_client_access", facts(), parent_domain_matches_subdomains="")
    assert found[:3] == ["a.b.example", ".b.example", ".example"]


def test_keys_of_ipv6() -> None:
    found = keys("check_client_access", Facts("unknown", "2001:db8::1"))
    assert found == ["unknown", "2001:db8::1", "2001:db8:", "2001:db8", "2001"]


def acted(action: str, stage: str = "recipient") -> tuple[Verdict | None, Facts, Door]:
    """What an action does when the sender's table says it."""
    made = Door(**{f"smtpd_{stage}_restrictions": "check_sender_access inline:{{s@x.example=" + action + "}}"})
    seen = Facts("unknown", "203.0.113.1", **MAIL)
    return asyncio.run(made.access.check(stage, seen, made.soft.append)), seen, made


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("OK", None),
        ("123456", None),
        ("DUNNO", None),
        ("dunno", None),
        ("REJECT", "554 5.7.1 <s@x.example>: Sender address rejected: Access denied"),
        ("reject go away", "554 5.7.1 <s@x.example>: Sender address rejected: go away"),
        ("DEFER", "450 4.7.1 <s@x.example>: Sender address rejected: Access denied"),
        ("550 5.1.1 none", "550 5.1.7 <s@x.example>: Sender address rejected: none"),
        ("450", None),
        ("421 bye", "421 4.7.1 <s@x.example>: Sender address rejected: bye"),
        ("permit_mynetworks, reject", "554 5.7.1 <s@x.example>: Sender address rejected: Access denied"),
        ("no_such_thing", "451 4.3.5 Server configuration error"),
    ],
)
def test_verdicts(action: str, expected: str | None) -> None:
    verdict, _, _ = acted(action)
    assert (verdict and verdict.reply.decode()) == expected


def test_actions_are_for_later() -> None:
    for action, attribute, value in (
        ("HOLD", "hold", True),
        ("DISCARD why", "discard", True),
        ("FILTER smtp:[192.0.2.1]", "filter", "smtp:[192.0.2.1]"),
        ("REDIRECT a@b.example", "redirect", "a@b.example"),
        ("BCC a@b.example", "bcc", ["a@b.example"]),
        ("PREPEND X-A: b", "prepend", ["X-A: b"]),
    ):
        verdict, seen, _ = acted(action)
        assert verdict is None
        assert seen.actions is not None
        assert getattr(seen.actions, attribute) == value


@pytest.mark.parametrize("action", ["REDIRECT nobody", "FILTER x", "BCC x", "PREPEND nothing", "PREPEND a b: c"])
def test_malformed_actions_are_warned_of(action: str) -> None:
    verdict, seen, made = acted(action)
    assert verdict is None
    assert seen.actions is None
    assert made.warnings


def test_defer_if() -> None:
    _, seen, _ = acted("DEFER_IF_PERMIT not now")
    assert seen.defer_if_permit is not None and seen.defer_if_permit.text.endswith("not now")
    _, seen, _ = acted("DEFER_IF_REJECT")
    assert seen.defer_if_reject is not None and seen.defer_if_reject.code == 450


def test_classes_and_their_endless_recursion() -> None:
    made = door("strict, permit", smtpd_restriction_classes="strict", strict="reject_unauth_destination")
    assert made.check(sender=b"s@x.example", recipient=b"u@far.example") is not None
    assert made.check(**MAIL) is None
    verdict = door("loop", smtpd_restriction_classes="loop", loop="loop").check(**MAIL)
    assert verdict is not None and verdict.code == 451


def test_a_table_that_cannot_be_asked_defers() -> None:
    for restriction in ("check_sender_access", "check_client_access", "check_recipient_access"):
        verdict = door(f"{restriction} fail:broken").check(**MAIL)
        assert verdict is not None and verdict.reply.startswith(b"451 4.3.5 ")


def test_warn_if_reject_reaches_into_tables() -> None:
    made = door("warn_if_reject check_sender_access inline:{{s@x.example=REJECT}}, permit")
    assert made.check(**MAIL) is None
    assert [verdict.code for verdict in made.soft] == [554]


@pytest.mark.parametrize(
    ("restrictions"), ["reject_rbl_client a.example=127.0.0", "check_policy_service nowhere", "sleep x", "check_sender_access"]
)
def test_bad_arguments_stop_the_start(restrictions: str) -> None:
    with pytest.raises(ConfigError):
        door(restrictions)


# -- DNS lists ------------------------------------------------------------------------------------------------------------------


def test_filters() -> None:
    assert matches(parse_filter("127.0.0.2"), "127.0.0.2")
    assert not matches(parse_filter("127.0.0.2"), "127.0.0.3")
    assert matches(parse_filter("127.0.[0..3].[1;5..7]"), "127.0.2.6")
    assert not matches(parse_filter("127.0.[0..3].[1;5..7]"), "127.0.2.4")


@given(st.text(alphabet="0123456789.[];x ", max_size=30))
def test_filters_parse_or_say_so(text: str) -> None:
    try:
        assert len(parse_filter(text)) == 4
    except BadFilter:
        pass


def test_names_of_addresses() -> None:
    assert reversed_address("192.0.2.7") == "7.2.0.192"
    assert reversed_address("2001:db8::1").startswith("1.0.0.0.") and reversed_address("2001:db8::1").endswith(".2")


def test_reply_template() -> None:
    values = {"rbl_code": "554", "rbl_reason": "see $rbl_code", "empty": ""}
    assert fill("$rbl_code x${rbl_reason?; $rbl_reason}${empty?no}${empty:yes}", values) == "554 x; see $rbl_codeyes"


# -- statuses -------------------------------------------------------------------------------------------------------------------


def test_statuses() -> None:
    assert fixed_status(550, "4.1.1", "Sender address") == "5.1.7"
    assert fixed_status(450, "5.1.8", "Recipient address") == "4.1.2"
    assert fixed_status(550, "5.1.1", "Client host") == "5.0.0"
    assert split_status("5.7.1 text", "x") == ("5.7.1", "text")
    assert split_status("text", "5.7.1") == ("5.7.1", "text")
    assert literal_address("[IPv6:::1]") == "::1" and literal_address("[x]") == ""


@given(st.binary(max_size=40))
def test_scenes_take_any_address(address: bytes) -> None:
    scene = scene_for("sender", Facts("unknown", "192.0.2.1", sender=address), "RCPT", lambda _: None, lambda _, __: None)
    assert "\n" not in scene.refuse(550, "5.7.1", "x").text


def test_xtext() -> None:
    assert xtext("a b+c=é") == "a+20b+2Bc+3D+C3+A9"

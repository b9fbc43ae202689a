"""Restriction lists: parsed or refused at start, walked in order, safe when a table or trivial-rewrite cannot be asked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from estafeta.config.config import default_config
from estafeta.config.errors import ConfigError
from estafeta.daemons.smtpd.access import Access, Facts, Verdict
from estafeta.daemons.trivial_rewrite.resolve import Resolver
from estafeta.ipc.channel import ServiceLost
from estafeta.ipc.messages import Route
from estafeta.tables.table import OpenOptions

BASE = {
    "myhostname": "me.example",
    "mydestination": "local.example, $myhostname",
    "virtual_alias_domains": "alias.example",
    "virtual_mailbox_domains": "box.example",
    "relay_domains": "relayed.example",
    "local_recipient_maps": "inline:{ joe=x }",
    "virtual_alias_maps": "inline:{ known@alias.example=x@local.example }",
    "virtual_mailbox_maps": "inline:{ joe@box.example=x }",
    "relay_recipient_maps": "inline:{ joe@relayed.example=x }",
    "mynetworks": "192.0.2.0/24",
}


class Rewrite:
    """trivial-rewrite without a process."""

    def __init__(self, parameters: dict[str, str]) -> None:
        config = default_config().with_overrides(parameters.items())
        self._resolver = Resolver(config, OpenOptions(warn=lambda _: None, utf8=True), own_addresses=frozenset())
        self.lost = False

    async def resolve(self, address: bytes, sender: bytes = b"") -> Route:
        if self.lost:
            raise ServiceLost("gone")
        return await self._resolver.resolve(address, sender)


class Door:
    """An Access with what it warned of."""

    def __init__(self, **parameters: str) -> None:
        settings = {**BASE, **parameters}
        config = default_config().with_overrides(settings.items())
        self.warnings: list[str] = []
        self.soft: list[Verdict] = []
        self.rewrite: Any = Rewrite(settings)
        options = OpenOptions(warn=self.warnings.append, utf8=True)
        self.access = Access(config, options, self.rewrite, self.warnings.append)

    def check(self, stage: str = "recipient", address: str = "203.0.113.1", **facts: Any) -> Verdict | None:
        return asyncio.run(self.access.check(stage, Facts("unknown", address, **facts), self.soft.append))


def door(restrictions: str, **parameters: str) -> Door:
    return Door(smtpd_recipient_restrictions=restrictions, **parameters)


def code(verdict: Verdict | None) -> tuple[int, str] | None:
    return verdict and (verdict.code, verdict.dsn)


@pytest.mark.parametrize("stage", ["client", "helo", "sender", "relay", "recipient", "data", "end_of_data", "etrn"])
def test_an_unknown_restriction_stops_the_start(stage: str) -> None:
    with pytest.raises(ConfigError, match=f"smtpd_{stage}_restrictions.*reject_evrything"):
        Door(**{f"smtpd_{stage}_restrictions": "permit_mynetworks, reject_evrything"})


@pytest.mark.parametrize(
    ("restrictions", "expected"),
    [
        ("", None),
        ("permit, reject", None),
        ("reject, permit", (554, "5.7.1")),
        ("PERMIT, reject", None),
        ("defer", (450, "4.3.2")),
        ("warn_if_reject reject, permit", None),
        ("warn_if_reject reject, reject", (554, "5.7.1")),
        ("defer_if_reject, reject", (450, "4.7.0")),
        ("defer_if_reject, permit", None),
        ("sleep 1, reject", (554, "5.7.1")),
        ("permit_mynetworks, reject", (554, "5.7.1")),
    ],
)
def test_order_and_verdicts(restrictions: str, expected: tuple[int, str] | None) -> None:
    facts = {"sender": b"s@x.example", "recipient": b"joe@local.example"}
    assert code(door(restrictions).check(**facts)) == expected


def test_mynetworks() -> None:
    facts: dict[str, Any] = {"sender": b"s@x.example", "recipient": b"joe@local.example"}
    assert door("permit_mynetworks, reject").check(address="192.0.2.77", **facts) is None
    assert door("permit_mynetworks, reject").check(address="192.0.3.77", **facts) is not None


def test_warn_if_reject_tells() -> None:
    made = door("warn_if_reject reject_unauth_destination, permit")
    assert made.check(sender=b"s@x.example", recipient=b"u@far.example") is None
    assert [verdict.code for verdict in made.soft] == [554]


@pytest.mark.parametrize(
    ("recipient", "open_to_all"),
    [
        (b"joe@local.example", True),
        (b"u@alias.example", True),
        (b"u@box.example", True),
        (b"u@relayed.example", True),
        (b"u@sub.relayed.example", True),
        (b"u@far.example", False),
        (b"u%far.example@local.example", False),
        (b"u@far.example@local.example", False),
        (b"far.example!u@local.example", False),
        (b"u%far.example@relayed.example", False),
        (b"far.example!u@relayed.example", False),
        (b"u@far.example@relayed.example", False),
        (b"postmaster", True),
    ],
)
def test_relay_control(recipient: bytes, open_to_all: bool) -> None:
    facts = {"sender": b"s@x.example", "recipient": recipient}
    assert (door("reject_unauth_destination").check(**facts) is None) == open_to_all
    assert (door("permit_auth_destination, reject").check(**facts) is None) == open_to_all
    deferred = door("defer_unauth_destination").check(**facts)
    assert (deferred is None) == open_to_all
    assert deferred is None or deferred.code == 454 or deferred.code == 450


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        (b"joe@local.example", None),
        (b"joe@relayed.example", None),
        (b"joe@box.example", None),
        (b"known@alias.example", None),
        (b"nobody@local.example", "550 5.1.1 <nobody@local.example>: Recipient address rejected: User unknown in local recipient table"),
        (b"nobody@box.example", "550 5.1.1 <nobody@box.example>: Recipient address rejected: User unknown in virtual mailbox table"),
        (b"nobody@alias.example", "550 5.1.1 <nobody@alias.example>: Recipient address rejected: User unknown in virtual alias table"),
        (b"nobody@relayed.example", "550 5.1.1 <nobody@relayed.example>: Recipient address rejected: User unknown in relay recipient table"),
        (b"anybody@far.example", None),
    ],
)  # fmt: skip
def test_unlisted_recipients(recipient: bytes, expected: str | None) -> None:
    verdict = door("reject_unlisted_recipient").check(sender=b"s@x.example", recipient=recipient)
    assert (verdict and verdict.reply.decode()) == expected


@pytest.mark.parametrize(
    "restrictions",
    ["reject_unauth_destination", "permit_auth_destination, reject", "reject_unlisted_recipient, permit", "defer_unauth_destination"],
)
def test_what_cannot_be_asked_is_temporary(restrictions: str) -> None:
    facts = {"sender": b"s@x.example", "recipient": b"joe@local.example"}
    made = door(restrictions)
    made.rewrite.lost = True
    verdict = made.check(**facts)
    assert verdict is not None and 400 <= verdict.code < 500
    verdict = door(restrictions, mydestination="fail:broken").check(**facts)
    assert verdict is not None and 400 <= verdict.code < 500


def test_mynetworks_that_cannot_be_asked() -> None:
    verdict = door("permit_mynetworks, reject", mynetworks="fail:broken").check(sender=b"", recipient=b"joe@local.example")
    assert verdict is not None and 400 <= verdict.code < 500


@pytest.mark.parametrize(
    ("restriction", "stage", "facts", "refused"),
    [
        ("reject_non_fqdn_sender", "sender", {"sender": b"a@host"}, True),
        ("reject_non_fqdn_sender", "sender", {"sender": b"a@host.example"}, False),
        ("reject_non_fqdn_sender", "sender", {"sender": b""}, False),
        ("reject_non_fqdn_sender", "sender", {"sender": b"a@[192.0.2.1]"}, False),
        ("reject_non_fqdn_recipient", "recipient", {"sender": b"", "recipient": b"a"}, True),
        ("reject_non_fqdn_recipient", "recipient", {"sender": b"", "recipient": b"a@b.example"}, False),
        ("reject_non_fqdn_helo_hostname", "helo", {"helo": "host"}, True),
        ("reject_non_fqdn_hostname", "helo", {"helo": "host"}, True),
        ("reject_non_fqdn_helo_hostname", "helo", {"helo": "host.example"}, False),
        ("reject_invalid_helo_hostname", "helo", {"helo": "a b"}, True),
        ("reject_invalid_helo_hostname", "helo", {"helo": "host"}, False),
        ("reject_invalid_helo_hostname", "helo", {"helo": "[192.0.2.1]"}, False),
        ("reject_unauth_pipelining", "data", {"pipelined": True, "sender": b"", "recipient": None}, True),
        ("reject_unauth_pipelining", "data", {"pipelined": False, "sender": b"", "recipient": None}, False),
    ],
)
def test_names(restriction: str, stage: str, facts: dict[str, Any], refused: bool) -> None:
    made = Door(**{f"smtpd_{stage}_restrictions": restriction})
    assert (made.check(stage, **facts) is not None) == refused

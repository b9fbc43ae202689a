"""smtpd_reject_footer: where it goes, what it may say."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from estafeta.config.config import default_config
from estafeta.daemons.smtpd.footer import Footer
from estafeta.tables.table import OpenOptions


def footer(**parameters: str) -> tuple[Footer, list[str]]:
    warnings: list[str] = []
    config = default_config().with_overrides({"myhostname": "me.example", **parameters}.items())
    return Footer(config, OpenOptions(warn=warnings.append), warnings.append), warnings


def added(reply: bytes, **parameters: str) -> bytes:
    return footer(**parameters)[0].added(reply, "192.0.2.1", "99")


def test_none() -> None:
    assert not footer()[0]


def test_places() -> None:
    assert added(b"550 5.7.1 no", smtpd_reject_footer="call $client_address") == b"550-5.7.1 no\r\n550 5.7.1 call 192.0.2.1"
    assert added(b"550 no", smtpd_reject_footer="\\c. $server_name:$client_port") == b"550 no. me.example:99"
    assert added(b"450 no", smtpd_reject_footer="a\\nb") == b"450-no\r\n450-a\r\n450 b"
    assert added(b"550-a\r\n550 b", smtpd_reject_footer="c") == b"550-a\r\n550-b\r\n550 c"


def test_tables_come_first() -> None:
    both = {"smtpd_reject_footer": "plain", "smtpd_reject_footer_maps": "inline:{{550 no = mapped}}"}
    assert added(b"550 no", **both).endswith(b"550 mapped")
    assert added(b"551 no", **both).endswith(b"551 plain")
    made, warnings = footer(smtpd_reject_footer_maps="fail:broken")
    assert made.added(b"550 no", "a", "1") == b"550 no"
    assert warnings


def test_unknown_names_are_warned_of() -> None:
    made, warnings = footer(smtpd_reject_footer="x$sender")
    assert made.added(b"550 no", "a", "1") == b"550-no\r\n550 x"
    assert warnings


def test_what_is_not_allowed_is_censored() -> None:
    made, _ = footer(smtpd_reject_footer="x$client_address")
    assert made.added(b"550 no", "a\nb", "1").endswith(b"xa_b")


@given(st.binary(max_size=60))
def test_any_reply(reply: bytes) -> None:
    made, _ = footer(smtpd_reject_footer="x")
    assert made.added(reply, "a", "1").startswith(reply[:3])

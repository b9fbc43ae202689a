"""Lines of smtp_tls_policy_maps and smtp_tls_per_site."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.tls.policy import (
    LEVELS,
    PolicyError,
    bare_name,
    fingerprint_matches,
    parse_policy,
    per_site_level,
    policy_keys,
    wanted_names,
)


@given(st.text(max_size=80) | st.builds("{} {}={}".format, st.sampled_from(LEVELS), st.text(max_size=9), st.text(max_size=9)))
def test_any_line_is_a_policy_or_an_error(text: str) -> None:
    try:
        assert parse_policy(text).level in LEVELS
    except PolicyError:
        pass


def test_attributes() -> None:
    policy = parse_policy("secure match=a.example:.b.example, match=c.example protocols=TLSv1.2:TLSv1.3 ciphers=high servername=hostname")
    assert policy.match == ("a.example", ".b.example", "c.example")
    assert (policy.protocols, policy.ciphers, policy.server_name) == ("TLSv1.2:TLSv1.3", "high", "hostname")
    assert parse_policy("fingerprint match=AA:BB|CC:DD").match == ("AA:BB", "CC:DD")
    assert parse_policy("may connection_reuse=yes").reuse is True


@pytest.mark.parametrize(
    "line", ["", "bogus", "none protocols=x", "may match=x", "encrypt match=x", "may tafile=/x", "secure foo=x", "may ciphers"]
)
def test_what_is_refused(line: str) -> None:
    with pytest.raises(PolicyError):
        parse_policy(line)


def test_keys_go_up_for_a_bare_domain_alone() -> None:
    assert list(policy_keys("a.b.example")) == ["a.b.example", ".b.example", ".example"]
    assert list(policy_keys("[a.b.example]:25")) == ["[a.b.example]:25"]
    assert list(policy_keys("a.b.example:26")) == ["a.b.example:26"]


@pytest.mark.parametrize(
    ("default", "host", "nexthop", "level"),
    [
        ("none", None, None, "none"),
        ("none", "MAY", None, "may"),
        ("verify", "MAY", None, "verify"),
        ("encrypt", "NONE", None, "none"),
        ("may", "NONE", "MUST", "verify"),
        ("may", "NONE", "MAY", "none"),
        ("may", "MUST_NOPEERMATCH", "NONE", "encrypt"),
    ],
)
def test_per_site(default: str, host: str | None, nexthop: str | None, level: str) -> None:
    assert per_site_level(default, host, nexthop) == level


def test_names_and_fingerprints() -> None:
    assert wanted_names(("hostname", "dot-nexthop", "X.example"), "d.example", "mx.example") == [
        "mx.example", ".d.example", "x.example",
    ]  # fmt: skip
    assert bare_name("[mx.example]:587") == "mx.example"
    assert bare_name("mx.example:587") == "mx.example"
    assert fingerprint_matches(("aabb",), "AA:BB", "CC")
    assert not fingerprint_matches(("aabb",), "", "AA:BC")
    assert not fingerprint_matches((), "AA:BB")

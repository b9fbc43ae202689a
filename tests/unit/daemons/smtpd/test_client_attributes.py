"""The attributes of XCLIENT and XFORWARD."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.daemons.smtpd.client_attributes import BadAttribute, is_known, parse_attributes
from estafeta.protocol.smtp_client_commands import xtext


def test_every_form() -> None:
    found = parse_attributes("XCLIENT", "NAME=a.test ADDR=IPv6:2001:DB8::0001 proto=esmtp Login=[unavailable] port=25")
    assert found == {"NAME": "a.test", "ADDR": "2001:db8::1", "PROTO": "ESMTP", "LOGIN": "[UNAVAILABLE]", "PORT": "25"}
    assert not is_known(found["LOGIN"])
    assert parse_attributes("XFORWARD", "PROTO=uucp SOURCE=local") == {"PROTO": "uucp", "SOURCE": "LOCAL"}


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        ("ADDR", "Error: attribute=value expected"),
        ("ADDR=1.2.3.4 NAME=", "Error: attribute=value expected"),
        ("ADDR=1.2.3", "Bad ADDR syntax: 1.2.3"),
        ("ADDR=::1", "Bad ADDR syntax: ::1"),
        ("FOO=x", "Bad XCLIENT attribute name: FOO"),
        ("SOURCE=LOCAL", "Bad XCLIENT attribute name: SOURCE"),
        ("PORT=-1", "Bad PORT syntax: -1"),
        ("HELO=" + "a" * 256, "Error: attribute value too long"),
        ("PROTO=[UNAVAILABLE]", "Bad PROTO syntax: [UNAVAILABLE]"),
    ],
)
def test_refused(argument: str, reply: str) -> None:
    with pytest.raises(BadAttribute) as caught:
        parse_attributes("XCLIENT", argument)
    assert str(caught.value) == reply


def test_addresses_of_a_protocol_that_is_off() -> None:
    with pytest.raises(BadAttribute):
        parse_attributes("XFORWARD", "ADDR=IPV6:::1", ipv6=False)
    with pytest.raises(BadAttribute):
        parse_attributes("XFORWARD", "ADDR=127.0.0.1", ipv4=False)


@given(st.text(alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=60))
def test_xtext_comes_back(value: str) -> None:
    word = "HELO=" + xtext(value.encode()).decode()
    if value.upper() != "[UNAVAILABLE]":
        shown = "".join("?" if c in ' <>()\\";@' else c for c in value)
        assert parse_attributes("XFORWARD", word) == {"HELO": shown}


@given(st.sampled_from(["XCLIENT", "XFORWARD"]), st.text(max_size=300))
def test_anything_is_taken_or_refused(command: str, argument: str) -> None:
    try:
        found = parse_attributes(command, argument)
    except BadAttribute as bad:
        assert "\r" not in str(bad).partition(": ")[0]
        return
    for value in found.values():
        assert value
        assert not any(c < " " for c in value)

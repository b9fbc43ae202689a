"""Enhanced status codes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.mail.dsn_code import (
    CodedText,
    DsnCode,
    DsnCodeError,
    leading_status,
    parse_dsn_code,
    split_reply,
    split_status,
    status_for,
    with_class,
)


def test_parse_and_print() -> None:
    assert parse_dsn_code("5.1.10") == DsnCode(5, 1, 10)
    assert str(DsnCode(4, 7, 0).with_class(5)) == "5.7.0"
    assert with_class("4.4.3", 5) == "5.4.3"


@pytest.mark.parametrize(
    "text", ["", "5", "5.1", "3.1.1", "5.1.1.1", "5.1.1000", "5.1.1 ", "55.1.1", "5.1.x", "5.1.1\n"]
)
def test_what_is_no_status(text: str) -> None:
    with pytest.raises(DsnCodeError):
        parse_dsn_code(text)


def test_status_at_the_start_of_a_text() -> None:
    assert leading_status("5.1.1 no user") == "5.1.1"
    assert leading_status("5.1.1") == "5.1.1"
    assert leading_status("5.1.1. no") is None
    assert leading_status("no 5.1.1") is None
    assert split_status("4.2.0 later", "5.0.0") == ("4.2.0", "later")
    assert split_status("later", "4.0.0") == ("4.0.0", "later")


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        (250, "2.1.5 ok", "2.1.5"),
        (550, "4.1.1 odd", "5.0.0"),
        (450, "text", "4.0.0"),
        (354, "go", "5.5.0"),
        (150, "2.0.0 x", "5.5.0"),
    ],
)
def test_status_of_a_reply(code: int, text: str, status: str) -> None:
    assert status_for(code, text) == status


def test_split_reply() -> None:
    assert split_reply("550 5.1.1 no user") == CodedText(550, "5.1.1", "no user")
    assert split_reply("450") == CodedText(450, "4.0.0", "")
    assert split_reply("REJECT") is None
    assert split_reply("5500 x") is None


@given(st.text(max_size=20) | st.from_regex(r"[0-9]{3}[ -]?[0-9.]{0,9} ?.{0,5}", fullmatch=True))
def test_any_text(text: str) -> None:
    try:
        assert str(parse_dsn_code(text)).count(".") == 2
    except DsnCodeError:
        pass
    coded = split_reply(text)
    if coded is not None:
        parse_dsn_code(coded.status)

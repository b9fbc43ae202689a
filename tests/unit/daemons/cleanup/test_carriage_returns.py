"""Bare carriage returns in content."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from estafeta.daemons.cleanup.carriage_returns import without_bare_returns


def test_clean_content_is_not_copied() -> None:
    content = b"a\r\nb\r\n"
    assert without_bare_returns(content, 2) is content
    assert without_bare_returns(content, -1) is content


def test_bare_ones_become_spaces_or_go() -> None:
    assert without_bare_returns(b"a\rb\r\r\n\rc\r\r\r\n\r", 2) == b"a b\r\n c\r\n "


@given(st.lists(st.sampled_from([b"\r", b"\r\n", b".", b"x"])).map(b"".join))
def test_none_is_left_and_lines_stay(content: bytes) -> None:
    clean = without_bare_returns(content, content.count(b"\n"))
    assert clean.count(b"\r") == clean.count(b"\n") == clean.count(b"\r\n") == content.count(b"\n")

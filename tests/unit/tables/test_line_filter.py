"""tables.prefilter.LineFilter: what it says of a whole text is true of every line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.system.immediate import run_now
from estafeta.tables.maps import Maps
from estafeta.tables.table import OpenOptions

pytest.importorskip("re2")

PATTERNS = [
    "/^a/", "/b$/", "/^$/", "/a.b/", "/a[^x]b/", "/^ab?c*$/", "/\\bword\\b/", "/(a|b)+c/", "/^[[:space:]]*x/", "/A/i", "/a$b/m",
    "/\\./", "/b\\>/", "/^(.*)z$/", "!/a/", "/a{2,3}$/", "/\\Ba/", "/x$/mi", "/\\W$/",
]  # fmt: skip
PCRE = ["/^a/m", "/\\Aa/", "/b\\z/", "/(?-m)^b/", "/(?s)a.b/", "/a\\nb/", "/\\sx$/", "/^\\d+$/", "/[\\n]b/"]
LINES = st.lists(st.text("abcxzA .\t1\r\v", max_size=6), min_size=1, max_size=5)


def maps(kind: str, patterns: list[str]) -> Maps:
    inside = ", ".join(f"{{ {pattern} found }}" for pattern in patterns)
    return Maps([f"{kind}:{{ {inside} }}"], OpenOptions(warn=lambda _: None))


@given(st.sampled_from(["regexp", "pcre"]), st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=4), LINES)
def test_no_is_certain(kind: str, patterns: list[str], lines: list[str]) -> None:
    tables = maps(kind, patterns)
    if tables.excludes("\n".join([*lines, ""]).encode()):
        assert [line for line in lines if run_now(tables.find(line)) is not None] == []


@given(st.lists(st.sampled_from(PATTERNS + PCRE), min_size=1, max_size=4), LINES)
def test_no_is_certain_for_pcre(patterns: list[str], lines: list[str]) -> None:
    tables = maps("pcre", patterns)
    if tables.excludes("\n".join([*lines, ""]).encode()):
        assert [line for line in lines if run_now(tables.find(line)) is not None] == []


def test_it_says_no_at_all() -> None:
    """Plain patterns are filtered (else the speed would be gone without anybody noticing)."""
    tables = maps("regexp", ["/Accept Credit Cards/", "/GUARANTEED!$/", "/^free/"])
    assert tables.excludes(b"hello\nworld\nnot free\n")
    assert not tables.excludes(b"hello\nit is guaranteed!\n")


def test_substitution_can_be_forbidden() -> None:
    """transport(5): the rule is skipped with a warning, the others stay."""
    said: list[str] = []
    options = OpenOptions(warn=said.append, substitution=False)
    tables = Maps(["regexp:{ {/^(.*)@x$/ smtp:$1}, {/@x$/ smtp:fixed} }"], options)
    assert run_now(tables.find("evil@x")) == "smtp:fixed"
    assert any("regular expression substitution is not allowed: skipping this rule" in text for text in said), said

"""Right-hand sides of aliases and lines of .forward files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.daemons.local.targets import Kind, Target, parse_lines, parse_targets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a, b c", [("a", "A"), ("b", "A"), ("c", "A")]),
        ('"|cat > /x; echo \\"hi, there\\"", /f/g', [('cat > /x; echo "hi, there"', "C"), ("/f/g", "F")]),
        ("|/bin/true", [("/bin/true", "C")]),
        ("|/no/cmd a b", [("/no/cmd", "C"), ("a", "A"), ("b", "A")]),
        (":include:/a/b", [("/a/b", "I")]),
        ('":INCLUDE: /a b"', [("/a b", "I")]),
        ("\\joe, Joe Doe <joe@x.y>", [("\\joe", "A"), ("joe@x.y", "A")]),
        ('"Doe, Joe" <joe@x>, "a b"@c', [("joe@x", "A"), ("a b@c", "A")]),
        ("joe (the man)", [("joe", "A")]),
        ("/o=x/@gw.example", [("/o=x/@gw.example", "A")]),
        ('"unterminated', [("unterminated", "A")]),
        (" , ,, ", []),
    ],
)
def test_targets(text: str, expected: list[tuple[str, str]]) -> None:
    kinds = {"A": Kind.ADDRESS, "C": Kind.COMMAND, "F": Kind.FILE, "I": Kind.INCLUDE}
    assert parse_targets(text) == [Target(kinds[kind], value) for value, kind in expected]


@given(st.text(alphabet='ab"\\,|/:<>()@ \n#', max_size=40))
def test_any_text_gives_a_list(text: str) -> None:
    assert isinstance(parse_lines(text), list)


def test_comment_lines() -> None:
    assert parse_lines("# no, nothing\n a\n\n#\nb") == [Target(Kind.ADDRESS, "a"), Target(Kind.ADDRESS, "b")]

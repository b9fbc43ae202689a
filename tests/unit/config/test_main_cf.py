"""main.cf: what a line means, and what an edit leaves alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.config.errors import ConfigError
from estafeta.config.main_cf import edit_main_cf, edit_text, parse_main_cf, read_main_cf

SAMPLE = """\
# top
myhostname = a.b.c
  cont
# c in

# before
always_bcc = x
   # within
  y

always_bcc=z
last = 1
"""


def values(text: str) -> dict[str, str]:
    return {name: setting.value for name, setting in parse_main_cf(text).settings.items()}


def test_syntax() -> None:
    assert values(SAMPLE) == {"myhostname": "a.b.c  cont", "always_bcc": "z", "last": "1"}
    assert values("a=b\n\n # c\n\td\n") == {"a": "b\td"}
    assert values("a = \nb==c\nc.d = e = f \n") == {"a": "", "b": "=c", "c.d": "e = f"}
    assert values("") == {}


def test_lines_and_warnings() -> None:
    main = parse_main_cf(" stray = x\n\na = 1\na = 2\n", "m.cf")
    assert main.settings["a"] == ("a", "2", 4)
    assert main.warnings == (
        'm.cf: logical line must not start with whitespace: " stray = x"',
        "m.cf, line 4: overriding earlier entry: a=1",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1\n\nx\n", "m.cf, line 3: missing '=' after attribute name: \"x\""),
        ("= x", 'm.cf, line 1: missing attribute name: "= x"'),
        ("foo bar = x", "m.cf, line 1: missing '=' after attribute name: \"foo bar = x\""),
    ],
)
def test_errors_name_file_line_and_reason(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_main_cf(text, "m.cf")
    assert str(caught.value) == message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_main_cf(str(tmp_path))


def test_set_replaces_every_entry_and_keeps_comments() -> None:
    result = edit_text(SAMPLE, {"always_bcc": "new", "nova": "1"})
    assert result.repeated == ("always_bcc",)
    assert result.text == (
        "# top\nmyhostname = a.b.c\n  cont\n# c in\n\n# before\nalways_bcc = new\n   # within\n\n"
        "always_bcc = new\nlast = 1\nnova = 1\n"
    )


def test_comment_out_and_remove() -> None:
    assert "#always_bcc = x\n   # within\n#  y\n\n#always_bcc=z\n" in edit_text(SAMPLE, comment=["always_bcc"]).text
    assert edit_text(SAMPLE, remove=["always_bcc"]).text == (
        "# top\nmyhostname = a.b.c\n  cont\n# c in\n\n# before\n   # within\n\nlast = 1\n"
    )
    assert edit_text(SAMPLE, remove=["nonesuch"]).text == SAMPLE


def test_a_last_line_without_newline_stays_a_line() -> None:
    assert edit_text("a = 1", {"b": "2"}).text == "a = 1\nb = 2\n"


def test_file_keeps_its_mode_and_other_bytes(tmp_path: Path) -> None:
    path = tmp_path / "main.cf"
    path.write_bytes(b"# caf\xe9\na = 1\n")
    path.chmod(0o640)
    edit_main_cf(str(tmp_path), {"a": "2"})
    assert path.read_bytes() == b"# caf\xe9\na = 2\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["main.cf"]


LINES = st.lists(st.text(st.sampled_from(list("ab= #\t${}é")), max_size=12), max_size=8)


@given(LINES)
def test_parses_or_raises_its_error(lines: list[str]) -> None:
    try:
        parse_main_cf("\n".join(lines))
    except ConfigError as error:
        assert error.line


@given(LINES, st.sampled_from(["a", "b", "ab"]))
def test_an_edit_sets_what_it_says_and_nothing_else(lines: list[str], name: str) -> None:
    text = "\n".join(lines)
    try:
        before = values(text)
    except ConfigError:
        return
    after = values(edit_text(text, {name: "new value"}).text)
    assert after == before | {name: "new value"}

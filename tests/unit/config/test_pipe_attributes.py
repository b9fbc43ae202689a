"""config.pipe_attributes and config.filter_check."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.config.pipe_attributes import BadAttributes, parse_pipe_attributes, template, unescape
from estafeta.config.programs import KNOWN_PROGRAMS
from estafeta.config.settings_check import check_configuration


def test_whole_line() -> None:
    found = parse_pipe_attributes(
        tuple(shlex.split("flags=DRhu user=vmail:mail null_sender= size=100 eol=\\\\r\\\\n directory=/tmp argv=/bin/x -d ${recipient} $$"))
    )
    assert (found.user, found.group, found.size_limit, found.eol, found.directory) == ("vmail", "mail", 100, b"\r\n", "/tmp")
    assert found.argv == (("/bin/x",), ("-d",), (("recipient",),), ("$",))
    assert found.null_sender == ""
    assert found.flags == frozenset("DRhu")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("user=x",), "missing argv="),
        (("argv=/bin/x",), "missing user="),
        (("user=x", "flags=Z", "argv=/bin/x"), "unknown flag: Z"),
        (("user=x", "color=blue", "argv=/bin/x"), "unknown attribute name: color=blue"),
        (("user=x", "size=big", "argv=/bin/x"), "bad size="),
        (("user=x", "argv=/bin/x", "${recipent}"), "unknown macro name 'recipent'"),
        (("user=x", "argv=/bin/x", "a$"), "truncated macro"),
        (("user=x", "eol=\\q", "argv=/bin/x"), "unknown escape"),
    ],
)
def test_refused(args: tuple[str, ...], text: str) -> None:
    with pytest.raises(BadAttributes, match=text.replace("$", r"\$")):
        parse_pipe_attributes(args)


def test_escapes() -> None:
    assert unescape(r"\r\n\041\\x") == b"\r\n!\\x"


@given(st.text(alphabet="${}()ab_$ \\x", max_size=30))
def test_any_argument(text: str) -> None:
    """It parses or raises its one error."""
    try:
        template(text)
        unescape(text)
    except BadAttributes:
        pass


MASTER = """\
smtp inet n - n - - smtpd {smtpd}
127.0.0.1:10025 inet n - n - - smtpd {back}
pickup unix n - n 60 1 pickup {pickup}
smtp unix - - n - - smtp
scan unix - n n - 10 smtp
filter unix - n n - 10 pipe flags=Rq user=nobody argv=/bin/filter -f ${{sender}} -- ${{recipient}}
"""


def problems(tmp_path: Path, main: str, **places: str) -> str:
    (tmp_path / "main.cf").write_text(f"compatibility_level = 3.6\n{main}\n")
    given = {"smtpd": "", "back": "", "pickup": ""} | places
    (tmp_path / "master.cf").write_text(MASTER.format(**given))
    return "\n".join(str(problem) for problem in check_configuration(str(tmp_path), KNOWN_PROGRAMS))


def test_filter_that_feeds_itself(tmp_path: Path) -> None:
    """By SMTP and by sendmail; the ways of FILTER_README are not complained about."""
    main = "content_filter = scan:127.0.0.1:10025"
    assert "feeds itself: that port is ours" in problems(tmp_path, main)
    assert "feeds itself" not in problems(tmp_path, main, back="-o content_filter=")
    assert "feeds itself" not in problems(tmp_path, "content_filter = scan:[127.0.0.1]:10024", back="-o content_filter=")
    assert "feeds itself" in problems(tmp_path, "content_filter = scan:[localhost]:10025")
    assert "a filter that hands mail back with sendmail(1) feeds itself" in problems(tmp_path, "content_filter = filter:x")
    assert "feeds itself" not in problems(tmp_path, "content_filter = filter:x", pickup="-o content_filter=")
    assert "feeds itself" not in problems(tmp_path, "", smtpd="-o content_filter=filter:x")
    assert "master.cf has no service gone" in problems(tmp_path, "content_filter = gone:x")


def test_bad_attributes_are_fatal(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    (tmp_path / "master.cf").write_text("x unix - n n - - pipe flags=Z user=x argv=/bin/x\n")
    said = [str(problem) for problem in check_configuration(str(tmp_path), KNOWN_PROGRAMS)]
    assert any(line.startswith("fatal: ") and "line 1" in line and "unknown flag: Z" in line for line in said), said

"""sendmail: options, message reading, submission into maildrop."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.commands.sendmail_message import read_message, recipients_in_headers, wire_form
from estafeta.commands.sendmail_options import UsageError, read_options, xtext
from estafeta.mail import maildrop
from estafeta.mail.dsn_report import unxtext
from estafeta.spool import maildrop as drop


def _silent(text: str) -> None:
    pass


def test_options() -> None:
    options = read_options(["-oi", "-fme@here", "-F", "My Name", "-Nsuccess,delay", "-R", "hdrs", "-V", "a+b", "x@y, z@w", "-t"], _silent)
    assert options.sender == b"me@here" and options.full_name == "My Name" and options.ignore_dots
    assert options.notify == 10 and options.ret == "HDRS" and options.envid == b"a+2Bb"
    assert options.recipients == [b"x@y", b"z@w", b"-t"] and not options.from_headers


@pytest.mark.parametrize(("words", "text"), [
    (["-bz"], "unsupported: -bz"), (["-zz"], "usage: sendmail [options]"), (["-f"], "usage: sendmail [options]"),
    (["-bd", "-t"], "-t can be used only in delivery mode"), (["-bp", "x"], "display queue mode requires no recipient"),
    (["-bs", "x"], "stand-alone mode requires no recipient"), (["-B", "9"], "-B option needs 8BITMIME or 7BIT"),
    (["-n"], "-n option not supported"), (["-qX"], "-qX is not implemented"), (["-bv", "-t"], "-t option cannot be used with -bv"),
])  # fmt: skip
def test_usage_errors(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_options(words, _silent)
    assert str(caught.value) == text


@given(st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=8), max_size=5))
def test_any_command_line(words: list[str]) -> None:
    try:
        read_options(words, _silent)
    except UsageError:
        pass


@given(st.binary(max_size=40))
def test_xtext(data: bytes) -> None:
    assert unxtext(xtext(data)) == data


@pytest.mark.parametrize(("data", "dot", "wanted"), [
    (b"a\nb", True, b"a\r\nb\r\n"), (b"a\n.\nb\n", True, b"a\r\n"), (b"a\n.\nb\n", False, b"a\r\n.\r\nb\r\n"),
    (b"a\r\n.\r\nb", True, b"a\r\n"), (b".\nx", True, b""), (b"From me\n>From x\nTo: a\n", True, b"To: a\r\n"), (b"a\n.", True, b"a\r\n"),
    (b"a\n.x\n", True, b"a\r\n.x\r\n"), (b"", True, b""),
])  # fmt: skip
def test_wire_form(data: bytes, dot: bool, wanted: bytes) -> None:
    assert wire_form(data, dot_ends=dot) == wanted


def test_size_limit() -> None:
    assert read_message(io.BytesIO(b"x" * 100), dot_ends=True, limit=50) is None
    assert read_message(io.BytesIO(b"x" * 40 + b"\n"), dot_ends=True, limit=50) is not None


def test_recipients_in_headers() -> None:
    assert recipients_in_headers(b"To: a@x,\r\n b@x\r\nBcc: G: c@x;\r\n\r\nTo: d@x\r\n") == [b"a@x", b"b@x", b"c@x"]
    assert recipients_in_headers(b"To: a@x\r\nResent-To: r@x\r\n\r\n") == [b"r@x"]


def test_write_and_read(tmp_path: Path) -> None:
    (tmp_path / "maildrop").mkdir()
    data = maildrop.encode(maildrop.Submission(b"a@b", [b"c@d"], b"x\r\n", 5.0, os.getuid()))
    name = drop.submit(str(tmp_path), data)
    assert drop.names(str(tmp_path)) == [name] == os.listdir(tmp_path / "maildrop")
    assert drop.read(str(tmp_path), name).content == b"x\r\n"
    os.symlink("/etc/passwd", tmp_path / "maildrop" / "ABCDEF12")
    with pytest.raises(OSError):
        drop.read(str(tmp_path), "ABCDEF12")


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(drop.SubmitError):
        drop.hand_to_pickup(str(tmp_path), b"x")


@pytest.mark.parametrize("module", ["sendmail", "mailq", "postqueue", "postdrop", "postlog"])
def test_light_start(module: str) -> None:
    code = f"import sys, estafeta.commands.{module}; print([m for m in ('asyncio', 'ssl', 'msgspec', 'subprocess') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sendmail_command(tmp_path: Path) -> None:
    (tmp_path / "spool" / "maildrop").mkdir(parents=True)
    (tmp_path / "main.cf").write_text(f"queue_directory = {tmp_path}/spool\nmyhostname = h.example\n")
    command = [sys.executable, "-m", "estafeta.commands.sendmail", "-C", str(tmp_path)]
    done = subprocess.run([*command, "-f", "a@b", "c@d"], input=b"Subject: x\n\nhi\n.\nno\n", capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    name, = drop.names(str(tmp_path / "spool"))
    found = drop.read(str(tmp_path / "spool"), name)
    assert (found.sender, found.recipients, found.content) == (b"a@b", [b"c@d"], b"Subject: x\r\n\r\nhi\r\n")
    done = subprocess.run(command, input=b"", capture_output=True, check=False)
    assert done.returncode == 75 and b"Recipient addresses must be specified" in done.stderr
    script = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nS: x\r\n\r\n..dot\r\n.\r\nFOO\r\nQUIT\r\n"
    done = subprocess.run([*command, "-bs"], input=script, capture_output=True, check=False)
    codes = [line[:4] for line in done.stdout.decode().splitlines()]
    assert [code for code in codes if code.endswith(" ")] == ["220 ", "250 ", "250 ", "250 ", "354 ", "250 ", "500 ", "221 "]
    contents = [drop.read(str(tmp_path / "spool"), name).content for name in drop.names(str(tmp_path / "spool"))]
    assert b"S: x\r\n\r\n.dot\r\n" in contents

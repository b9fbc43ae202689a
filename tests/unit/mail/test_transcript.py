"""Transcripts: bounded whatever is said, both ends kept, one line each side, no secrets."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from estafeta.mail.transcript import Transcript, without_secrets


def test_lines() -> None:
    transcript = Transcript()
    transcript.sent(b"250-one\r\n250 two")
    transcript.got(b"MAIL FROM:<\xff\x01@x>")
    transcript.got(b"")
    transcript.got(b"250-a", b"250 b")
    transcript.sent(b"550 5.1.1 <nobody@box.test>: Recipient address rejected: User unknown in virtual mailbox table")
    assert transcript.lines() == [
        " Out: 250-one",
        " Out: 250 two",
        " In:  MAIL FROM:<??@x>",
        " In:",
        " In:  250-a",
        " In:  250 b",
        " Out: 550 5.1.1 <nobody@box.test>: Recipient address rejected: User unknown in",
        "     virtual mailbox table",
    ]


def test_a_hundred_thousand_commands_stay_small() -> None:
    transcript = Transcript()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(100_000):
        transcript.got(b"JUNK %d " % number + b"x" * 2000)
        transcript.sent(b"500 5.5.2 Error: command not recognized")
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 200_000
    lines = transcript.lines()
    assert lines[0].startswith(" In:  JUNK 0")
    assert any(line.startswith(" In:  JUNK 99999") for line in lines)
    assert any("left out" in line for line in lines)


@given(st.lists(st.one_of(st.binary(max_size=700), st.lists(st.binary(max_size=300), min_size=1, max_size=5)), max_size=500))
def test_whatever_is_said_the_notice_is_plain(said: list[bytes | list[bytes]]) -> None:
    transcript = Transcript()
    for one in said:
        if isinstance(one, bytes):
            transcript.sent(one)
        else:
            transcript.got(*one)
    lines = transcript.lines()
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert sum(map(len, lines)) < 400_000
    assert (transcript.dropped > 0) == any("more left out)" in line for line in lines) or not transcript.dropped


def test_secrets() -> None:
    assert without_secrets(b"AUTH PLAIN AGEAYg==") == b"AUTH PLAIN (not shown)"
    assert without_secrets(b"auth LOGIN") == b"AUTH LOGIN"
    assert without_secrets(b"AGEAYg==") == b"(not shown)"
    assert without_secrets(b"") == b"(not shown)"
    assert b"hunter2" not in without_secrets(b"AUTH  PLAIN  hunter2 hunter2")

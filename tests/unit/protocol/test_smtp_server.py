"""The SMTP server machine: every case whole, byte by byte, and at random cuts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.protocol.smtp_server import ChunkContent, Command, Content, SmtpServer, State


def converse(pieces: list[bytes]) -> list[object]:
    """Feed pieces; accept every command; merge content pieces."""
    machine = SmtpServer()
    events: list[object] = []
    content = b""
    for piece in pieces:
        machine.receive_data(piece)
        while (event := machine.next_event()) is not None:
            if isinstance(event, Command):
                events.append((event.verb, event.argument))
                if event.verb == b"BDAT":
                    count, _, last = event.argument.partition(b" ")
                    machine.expect_chunk(int(count), last == b"LAST")
                elif event.verb == b"QUIT":
                    machine.stop()
                elif event.verb not in (b"NOOP",) and machine.allows(event.verb):
                    machine.advance(event.verb)
            elif isinstance(event, Content):
                content += event.data
                if event.last:
                    events.append(("content", content))
                    content = b""
                    machine.end_transaction()
            elif isinstance(event, ChunkContent):
                content += event.data
                if event.end and event.last:
                    events.append(("content", content))
                    content = b""
                    machine.end_transaction()
            else:
                events.append(type(event).__name__)
    return events


ENVELOPE = b"EHLO x\r\nMAIL FROM:<a>\r\nRCPT TO:<b>\r\n"
START = [(b"EHLO", b"x"), (b"MAIL", b"FROM:<a>"), (b"RCPT", b"TO:<b>")]
CASES = {
    "plain": (ENVELOPE + b"DATA\r\nhello\r\n.\r\nQUIT\r\n", [(b"DATA", b""), ("content", b"hello\r\n"), (b"QUIT", b"")]),
    "empty": (ENVELOPE + b"DATA\r\n.\r\nNOOP\r\n", [(b"DATA", b""), ("content", b""), (b"NOOP", b"")]),
    "stuffed": (ENVELOPE + b"DATA\r\n..a\r\n..\r\n.b\r\n.\r\n", [(b"DATA", b""), ("content", b".a\r\n.\r\nb\r\n")]),
    "bare dot lines do not end": (
        ENVELOPE + b"DATA\r\na\n.\nb\r.\rc\n.\r\nd\r\n.\ne\r\n.\r\n",
        [(b"DATA", b""), ("content", b"a\r\n.\r\nb\r.\rc\r\n.\r\nd\r\n\r\ne\r\n")],
    ),
    "chunks": (ENVELOPE + b"BDAT 4\r\nabcdBDAT 2 LAST\r\n\r\nNOOP\r\n",
               [(b"BDAT", b"4"), (b"BDAT", b"2 LAST"), ("content", b"abcd\r\n"), (b"NOOP", b"")]),
    "empty last chunk": (ENVELOPE + b"BDAT 2\r\nx\nBDAT 0 LAST\r\nNOOP\r\n",
                         [(b"BDAT", b"2"), (b"BDAT", b"0 LAST"), ("content", b"x\r\n"), (b"NOOP", b"")]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_any_cut(name: str) -> None:
    data, expected = CASES[name]
    assert converse([data]) == START + expected
    assert converse([data[i : i + 1] for i in range(len(data))]) == START + expected
    chooser = random.Random(name)
    for _ in range(50):
        cuts = sorted(chooser.sample(range(len(data)), 3))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        assert converse(pieces) == START + expected


def test_long_line_is_cut_at_the_limit() -> None:
    data = b"NOOP " + b"x" * 5000 + b"\r\nNOOP\r\n"
    assert converse([data]) == [(b"NOOP", b"x" * 2043), (b"NOOP", b"")]
    assert converse([data[i : i + 1] for i in range(len(data))]) == [(b"NOOP", b"x" * 2043), (b"NOOP", b"")]


def test_nothing_is_read_after_stop() -> None:
    machine = SmtpServer()
    machine.receive_data(b"QUIT\r\nNOOP\r\n")
    assert isinstance(machine.next_event(), Command)
    machine.stop()
    assert machine.next_event() is None
    assert machine.take_leftover() == b"NOOP\r\n"


def test_order() -> None:
    machine = SmtpServer()
    assert not machine.allows(b"RCPT")
    assert machine.order_error(b"RCPT") == b"503 5.5.1 Error: need MAIL command"
    machine.advance(b"EHLO")
    machine.advance(b"MAIL")
    assert machine.state is State.MAIL
    assert machine.order_error(b"MAIL") == b"503 5.5.1 Error: nested MAIL command"
    assert not machine.allows(b"DATA")


def stuff(content: bytes) -> bytes:
    return (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


KINDS = {"": b"", ".": b".", "..": b"..", ".x": b".x", "x": b"x", "long": b"x" * 70000, "cr": b"\r", "a-cr-b": b"a\rb"}
lines = st.lists(st.sampled_from(sorted(KINDS)), max_size=12)


@given(lines, st.integers(1, 100000))
def test_content_survives(kinds: list[str], step: int) -> None:
    content_lines = [KINDS[kind] for kind in kinds]
    content = b"".join(line + b"\r\n" for line in content_lines)
    data = stuff(content)
    expected = [*START, (b"DATA", b""), ("content", content)]
    assert converse([ENVELOPE + b"DATA\r\n", *(data[i : i + step] for i in range(0, len(data), step))]) == expected


@given(lines, st.integers(1, 100000))
def test_what_is_told_of_content_is_true(kinds: list[str], step: int) -> None:
    content_lines = [KINDS[kind] for kind in kinds]
    content = b"".join(line + b"\r\n" for line in content_lines)
    for bdat in (False, True):
        machine = SmtpServer()
        for verb in (b"EHLO", b"MAIL", b"RCPT"):
            machine.advance(verb)
        data = content
        if bdat:
            machine.expect_chunk(len(content), True)
        else:
            data = stuff(content)
            machine.advance(b"DATA")
        told: list[Content | ChunkContent] = []
        for position in range(0, max(1, len(data)), step):
            machine.receive_data(data[position : position + step])
            while (event := machine.next_event()) is not None:
                assert isinstance(event, Content | ChunkContent)
                told.append(event)
                if event.last:
                    machine.end_transaction()
        assert b"".join(event.data for event in told) == content
        assert sum(event.lines for event in told) == len(content_lines)
        assert any(event.dots for event in told) == any(line.startswith(b".") for line in content_lines)
        assert not any(event.bare_newline for event in told)


def test_many_blank_lines_stream() -> None:
    content = b"\r\n" * 200000
    data = stuff(content)
    pieces = [data[i : i + 30001] for i in range(0, len(data), 30001)]
    assert converse([ENVELOPE + b"DATA\r\n", *pieces])[-1] == ("content", content)

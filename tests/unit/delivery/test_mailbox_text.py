"""Line ends, "From " quoting, headers on top, Delivered-To."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from estafeta.delivery.mailbox import delivered_to, trace_headers, unix_lines
from estafeta.delivery.mbox import from_line, quote_from
from estafeta.ipc.messages import Envelope

_PIECES = st.lists(st.sampled_from([b"From ", b"Fro", b"m ", b"\n", b"F", b">From ", b"x", b"\r", b"\r\n", b"", b"From"]))


@given(_PIECES)
def test_quoting_does_not_depend_on_the_cuts(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    lines = whole.split(b"\n")
    expected = b"\n".join(b">" + line if line.startswith(b"From ") else line for line in lines)
    assert b"".join(quote_from(pieces)) == expected


@given(_PIECES)
def test_line_ends_do_not_depend_on_the_cuts(pieces: list[bytes]) -> None:
    expected = b"".join(pieces).replace(b"\r\n", b"\n")
    if expected and not expected.endswith(b"\n"):
        expected += b"\n"
    assert b"".join(unix_lines(iter(pieces))) == expected


@given(st.binary())
def test_delivered_to_never_fails(block: bytes) -> None:
    delivered_to(block)


def test_delivered_to_is_found_in_any_case() -> None:
    block = b"A: b\r\nDELIVERED-TO: Joe@X\r\ndelivered-to:\r\n ann@y\r\nX-Delivered-To: no\r\n"
    assert delivered_to(block) == {b"joe@x", b"ann@y"}
    assert delivered_to(b"Subject: Delivered-To: x\r\n") == frozenset()


def test_headers_on_top() -> None:
    envelope = Envelope("1", 0.0, b"a b@c", [])
    assert trace_headers(envelope, original=b"o@x", delivered=b"d@x") == (
        b'Return-Path: <"a b"@c>\nX-Original-To: o@x\nDelivered-To: d@x\n'
    )
    assert trace_headers(Envelope("1", 0.0, b"", []), original=b"", delivered=b"") == b"Return-Path: <>\n"


def test_from_line() -> None:
    assert from_line(b"", 0.0).startswith(b"From MAILER-DAEMON  ")
    assert from_line(b"a@b", 0.0).endswith(b" 1970\n") or from_line(b"a@b", 0.0).endswith(b" 1969\n")

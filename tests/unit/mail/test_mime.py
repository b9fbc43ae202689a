"""mail.mime: the structure of bodies, whole and in pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.mail.mime import BodyScanner, Kind, MimeProblem, Piece, parse_content_type, parse_encoding

PARTS = (
    b"preamble\r\n--out\r\nContent-Type: multipart/mixed;\r\n boundary=\"in ner\"\r\n\r\n--in ner\r\nX: 1\r\n\r\none\r\n"
    b"--in ner--\r\nafter\r\n--out\r\nContent-Type: message/rfc822\r\n\r\nSubject: s\r\n t\r\n\r\nhello\r\n--out--\r\nend\r\n"
)


def shape(pieces: list[Piece]) -> list[tuple[Kind, bytes]]:
    """Pieces with neighbouring stretches of body put together."""
    joined: list[tuple[Kind, bytes]] = []
    for kind, data, _ in pieces:
        if joined and kind is Kind.BODY and joined[-1][0] is Kind.BODY:
            joined[-1] = (kind, joined[-1][1] + data)
        else:
            joined.append((kind, data))
    return joined


def scan(body: bytes, cuts: list[int] = [], kind: bytes | None = b"multipart/mixed; boundary=out") -> list[tuple[Kind, bytes]]:  # noqa: B006
    scanner = BodyScanner(kind, None)
    places = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    pieces: list[Piece] = []
    for number, (start, end) in enumerate(pairwise(places)):
        pieces += scanner.feed(body[start:end], last=number == len(places) - 2)
    return shape(pieces)


def test_parts() -> None:
    """Every part is found, with its headers."""
    assert scan(PARTS) == [
        (Kind.BODY, b"preamble\r\n"),
        (Kind.BOUNDARY, b"--out\r\n"),
        (Kind.PART_HEADER, b"Content-Type: multipart/mixed;\r\n boundary=\"in ner\"\r\n"),
        (Kind.BLANK, b"\r\n"),
        (Kind.BOUNDARY, b"--in ner\r\n"),
        (Kind.PART_HEADER, b"X: 1\r\n"),
        (Kind.BLANK, b"\r\n"),
        (Kind.BODY, b"one\r\n"),
        (Kind.CLOSING, b"--in ner--\r\n"),
        (Kind.BODY, b"after\r\n"),
        (Kind.BOUNDARY, b"--out\r\n"),
        (Kind.PART_HEADER, b"Content-Type: message/rfc822\r\n"),
        (Kind.BLANK, b"\r\n"),
        (Kind.NESTED_HEADER, b"Subject: s\r\n t\r\n"),
        (Kind.BLANK, b"\r\n"),
        (Kind.BODY, b"hello\r\n"),
        (Kind.CLOSING, b"--out--\r\n"),
        (Kind.BODY, b"end\r\n"),
    ]  # fmt: skip


def test_outer_boundary_ends_inner_part() -> None:
    """A missing end of an inner multipart does not hide what follows."""
    body = b"--out\r\nContent-Type: multipart/x; boundary=in\r\n\r\n--in\r\n\r\ntext\r\n--out\r\nX: y\r\n\r\n"
    assert (Kind.PART_HEADER, b"X: y\r\n") in scan(body)


@given(st.lists(st.integers(0, 400), max_size=12))
def test_cuts(cuts: list[int]) -> None:
    """However the body is cut, the pieces are the same."""
    assert scan(PARTS, cuts) == scan(PARTS)


@given(
    st.lists(st.sampled_from([b"--out", b"--o", b"--", b"-", b"\r\n", b"\n", b"x", b"X: y", b" ", b"Content-Type: ",
                              b"message/rfc822", b"multipart/digest; boundary=o", b"\"", b"(", b":"])).map(b"".join),
    st.lists(st.integers(0, 300), max_size=5),
    st.sampled_from([None, b"", b"text", b"multipart/mixed; boundary=out", b"message/rfc822", b"multipart/digest;boundary=o"]),
)  # fmt: skip
def test_nothing_is_lost(body: bytes, cuts: list[int], kind: bytes | None) -> None:
    """The pieces put together are the input, and cuts change nothing."""
    try:
        whole = scan(body, [], kind)
    except MimeProblem:
        return
    assert b"".join(data for _, data in whole) == body
    assert scan(body, cuts, kind) == whole


def test_nesting_limit() -> None:
    """Too many levels are an error, not a deep stack."""
    body = b"".join(b"--%d\r\nContent-Type: multipart/mixed; boundary=%d\r\n\r\n" % (n, n + 1) for n in range(5))
    assert list(BodyScanner(b"multipart/mixed; boundary=0", None, nesting_limit=4).feed(body, last=True))
    with pytest.raises(MimeProblem):
        list(BodyScanner(b"multipart/mixed; boundary=0", None, nesting_limit=3).feed(body, last=True))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b" text/plain\r\n", (b"text", b"plain", b"")),
        (b" Multipart/Mixed; boundary=abc", (b"multipart", b"mixed", b"abc")),
        (b' multipart/mixed; charset=x; BOUNDARY = "a b\\"c" (comment)', (b"multipart", b"mixed", b'a b"c')),
        (b" multipart (a (nested) comment)/mixed;(x)boundary=(y)abc", (b"multipart", b"mixed", b"abc")),
        (b' multipart/mixed; name="boundary=no"; boundary=yes', (b"multipart", b"mixed", b"yes")),
        (b" multipart/mixed; boundary=", (b"multipart", b"mixed", b"")),
        (b"", (b"text", b"", b"")),
        (b" nonsense", (b"nonsense", b"", b"")),
        (b' multipart/mixed; boundary="unclosed', (b"multipart", b"mixed", b"unclosed")),
    ],
)
def test_content_type(value: bytes, expected: tuple[bytes, bytes, bytes]) -> None:
    """RFC 2045, comments and quotes included."""
    assert parse_content_type(value) == expected


@given(st.binary(max_size=200))
def test_any_content_type(value: bytes) -> None:
    """Any octets give some answer."""
    parse_content_type(value)
    parse_encoding(value)

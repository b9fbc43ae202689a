"""The maildrop codec: what goes in comes out; anything else raises MaildropError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.mail.maildrop import MAGIC, MaildropError, Submission, content_size, decode, encode

submissions = st.builds(
    Submission,
    sender=st.binary(max_size=40),
    recipients=st.lists(st.binary(max_size=40), max_size=5),
    content=st.binary(max_size=200),
    arrived_at=st.integers(0, 10**10).map(float),
    uid=st.integers(0, 2**32 - 1),
    full_name=st.binary(max_size=20),
    context=st.sampled_from(["local", "remote"]),
    body=st.sampled_from(["", "7BIT", "8BITMIME"]),
    notify=st.integers(0, 15),
    ret=st.sampled_from(["", "FULL", "HDRS"]),
    envid=st.binary(max_size=20),
    trace=st.sampled_from(["", "verify", "report"]),
)


@given(submissions)
def test_round_trip(submission: Submission) -> None:
    data = encode(submission)
    assert decode(data) == submission
    assert content_size(data) == len(submission.content)


@given(submissions, st.integers(1, 30))
def test_cut_off(submission: Submission, cut: int) -> None:
    with pytest.raises(MaildropError):
        decode(encode(submission)[:-cut])


@given(st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    for candidate in (data, MAGIC + data, MAGIC + data + b"\nsize 0\ncrc 0\n\n"):
        try:
            decode(candidate)
        except MaildropError:
            pass


def test_changed_content() -> None:
    data = encode(Submission(b"a@b", [b"c@d"], b"hello\r\n"))
    with pytest.raises(MaildropError):
        decode(data.replace(b"hello", b"jello"))


def test_no_line_can_be_smuggled_in() -> None:
    found = decode(encode(Submission(b"a\nuid 0\nrecipient x", [b"c\n\nbody"], b"", uid=1000)))
    assert found.uid == 1000
    assert found.recipients == [b"c\n\nbody"]

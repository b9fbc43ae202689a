"""Content in pieces, XFORWARD lines, names of parameters."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from estafeta.config.registry import parameters
from estafeta.daemons.smtp.content import content_pieces, whole_content
from estafeta.daemons.smtp.names import LMTP_NAMES
from estafeta.daemons.smtp.transaction import notify_words
from estafeta.daemons.smtp.xforward import xforward_commands
from estafeta.ipc.messages import Envelope, Place
from estafeta.spool.content import ContentReader

LINES = st.lists(st.sampled_from([b"", b".", b"..", b"a", b".hello", b"x" * 9, b"y" * 30, b"\r", b"a\rb"]), max_size=30)


@given(LINES, st.booleans(), st.integers(3, 50), st.sampled_from([0, 5, 10, 998]))
def test_pieces_are_the_whole(lines: list[bytes], ended: bool, piece_bytes: int, limit: int) -> None:
    content = b"\r\n".join(lines) + (b"\r\n" if ended else b"")
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "mail").write_bytes(b"head" + content)
        reader = ContentReader(directory)
        place = Place("mail", 0, 4 + len(content), 4, len(content))
        whole = whole_content(reader, place, dot_free=False, line_limit=limit)
        pieces = list(content_pieces(reader, place, dot_free=False, line_limit=limit, piece_bytes=piece_bytes))
        reader.close()
    assert b"".join(pieces) == whole
    assert not whole or whole.endswith(b"\r\n")
    assert b"\r\n.\r\n" not in b"\r\n" + whole


def test_xforward() -> None:
    envelope = Envelope("QID", 0.0, b"", [], client_name="a.example", client_address="192.0.2.1", helo_name="me(x) y",
                        protocol="ESMTP", rewrite_context="remote")  # fmt: skip
    assert xforward_commands("NAME ADDR PORT PROTO HELO SOURCE", envelope) == [
        b"XFORWARD NAME=a.example ADDR=192.0.2.1",
        b"XFORWARD PROTO=ESMTP HELO=me(x)+20y SOURCE=REMOTE",
    ]
    assert xforward_commands("", envelope) == []


def test_names_exist() -> None:
    known = parameters()
    assert [name for pair in LMTP_NAMES.items() for name in pair if name not in known] == []


def test_notify() -> None:
    assert [notify_words(bits) for bits in (0, 1, 2, 4, 8, 14)] == [
        b"", b"NEVER", b"SUCCESS", b"FAILURE", b"DELAY", b"SUCCESS,FAILURE,DELAY",
    ]  # fmt: skip

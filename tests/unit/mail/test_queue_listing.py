"""mailq's table and JSON lines."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from estafeta.mail.queue_listing import Listed, ListingError, json_line, parse_line, table

words = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


@given(st.builds(Listed, words, words, st.integers(0, 2**40), st.integers(0, 2**40), words,
                 st.lists(st.tuples(words, words), max_size=3), st.booleans()))  # fmt: skip
def test_round_trip(message: Listed) -> None:
    line = json_line(message)
    assert line.count("\n") == 1
    assert parse_line(line) == message


@given(st.text(max_size=60))
def test_garbage(text: str) -> None:
    for line in (text, f'{{"queue_name": "{text}"}}', "[1]", "null", '{"recipients": 3}'):
        try:
            parse_line(line)
        except ListingError:
            pass


def test_table() -> None:
    why = "connect to 127.0.0.2[127.0.0.2]:25: Connection refused"
    messages = [
        Listed("deferred", "9D1DA39E004", 0, 2169, "MAILER-DAEMON", [("sender@[127.0.0.2]", why)]),
        Listed("hold", "E1FA140C088", 0, 1939, "a@b", [("c@d", "")]),
    ]
    lines = "".join(table(messages)).split("\n")
    assert lines[0] == "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"
    assert lines[1].startswith("9D1DA39E004    2169 ") and lines[1].endswith("  MAILER-DAEMON")
    assert lines[2] == " " * 22 + f"({why})"
    assert lines[3] == " " * 41 + "sender@[127.0.0.2]"
    assert lines[5].startswith("E1FA140C088!   1939 ")
    assert lines[-2] == "-- 4 Kbytes in 2 Requests."
    assert "".join(table([])) == "Mail queue is empty\n"

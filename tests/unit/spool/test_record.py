"""The record codec: whole or nothing, whatever happens to the bytes."""

from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.ipc.messages import Envelope, Recipient
from estafeta.spool.record import (
    ALL_RECIPIENTS,
    Damage,
    DamagedRecord,
    Found,
    RecipientState,
    State,
    done_entry,
    iter_records,
    message_head,
    parse_record,
    read_done_log,
    state_record,
)


def record(queue_id: str, content: bytes, room: int = 0) -> bytes:
    envelope = Envelope(queue_id, 1.5, b"a@b", [Recipient(b"c@d", b"e@f", 3)])
    return message_head(envelope, len(content), crc32(content), room=room) + content


def ids(data: bytes) -> list[str]:
    return [f.envelope.queue_id for f in iter_records(data) if isinstance(f, Found) and f.envelope is not None]


@given(st.binary(max_size=300), st.integers(0, 500))
def test_round_trip(content: bytes, room: int) -> None:
    data = b"junk" + record("ABCDEF1", content, room)
    found = parse_record(data, 4)
    assert found.envelope is not None
    assert found.envelope.recipients[0].original == b"e@f"
    assert data[found.content_offset : found.content_offset + found.content_length] == content
    assert found.length == len(data) - 4


@given(st.lists(st.binary(max_size=60), min_size=2, max_size=5), st.data())
def test_a_torn_tail_costs_the_last_message_only(contents: list[bytes], data: st.DataObject) -> None:
    records = [record(f"ID{n:05d}", content) for n, content in enumerate(contents)]
    whole = b"".join(records[:-1])
    cut = data.draw(st.integers(0, len(records[-1]) - 1))
    assert ids(whole + records[-1][:cut]) == [f"ID{n:05d}" for n in range(len(contents) - 1)]


@given(st.lists(st.binary(max_size=60), min_size=3, max_size=5), st.data())
def test_damage_in_the_middle_costs_one_message(contents: list[bytes], data: st.DataObject) -> None:
    records = [record(f"ID{n:05d}", content) for n, content in enumerate(contents)]
    victim = data.draw(st.integers(0, len(records) - 1))
    position = data.draw(st.integers(0, len(records[victim]) - 1))
    broken = bytearray(records[victim])
    broken[position] ^= data.draw(st.integers(1, 255))
    joined = b"".join([*records[:victim], bytes(broken), *records[victim + 1 :]])
    expected = [f"ID{n:05d}" for n in range(len(contents)) if n != victim]
    assert [name for name in ids(joined) if name != f"ID{victim:05d}"] == expected
    damage = [item for item in iter_records(joined) if isinstance(item, Damage)]
    assert sum(item.length for item in damage) in (len(broken), 0)


@given(st.binary(max_size=400))
def test_garbage_is_never_a_message(data: bytes) -> None:
    for item in iter_records(data):
        assert isinstance(item, Damage)
    with pytest.raises(DamagedRecord):
        parse_record(data, 0)


@given(st.binary(max_size=100))
def test_done_log(tail: bytes) -> None:
    log = done_entry(0, 1) + done_entry(500, ALL_RECIPIENTS)
    assert read_done_log(log) == {0: {1}, 500: {ALL_RECIPIENTS}}
    assert read_done_log(log + tail)[0] == {1}
    assert read_done_log(log[:-1]) == {0: {1}}


def test_state_records() -> None:
    data = record("ABCDEF1", b"x") + state_record(State(2, 99.0, True, [RecipientState(0, True)]))
    found = list(iter_records(data))
    assert isinstance(found[1], Found)
    assert found[1].state == State(2, 99.0, True, [RecipientState(0, True)])

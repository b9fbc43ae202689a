"""What verify(8) says, when it probes, what it keeps."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from estafeta.daemons.verify.cache import Ages, Cache, Known, after_probe, decode, encode, judge
from estafeta.ipc.messages import VerifyStatus

DAY = 86400.0
AGES = Ages(31 * DAY, 7 * DAY, 3 * DAY, 3 * 3600.0, True)
NOW = 1_700_000_000.0


def known(status: VerifyStatus, age_s: float, probed_at: float = 0.0) -> Known:
    return Known(status, probed_at, NOW - age_s, "text")


def test_judge() -> None:
    assert judge(None, NOW, AGES) == (None, True)
    fresh = known(VerifyStatus.OK, DAY)
    assert judge(fresh, NOW, AGES) == (fresh, False)
    old = known(VerifyStatus.OK, 8 * DAY)
    assert judge(old, NOW, AGES) == (old, True)
    assert judge(known(VerifyStatus.OK, 8 * DAY, NOW - 5), NOW, AGES)[1] is False, "a probe is under way"
    assert judge(known(VerifyStatus.OK, 32 * DAY), NOW, AGES) == (None, True)
    assert judge(known(VerifyStatus.BOUNCE, 4 * DAY), NOW, AGES) == (None, True)
    assert judge(Known(VerifyStatus.TODO, NOW - 5, 0.0, ""), NOW, AGES) == (None, False)
    assert judge(Known(VerifyStatus.TODO, NOW - 5000, 0.0, ""), NOW, AGES) == (None, True), "the probe was lost"


def test_one_failed_probe_does_not_unmake_a_good_address() -> None:
    good = known(VerifyStatus.OK, 8 * DAY, NOW - 1)
    kept = after_probe(good, VerifyStatus.BOUNCE, "gone", NOW, AGES)
    assert kept is not None and kept.status == VerifyStatus.OK and kept.updated_at == good.updated_at
    expired = after_probe(known(VerifyStatus.OK, 40 * DAY), VerifyStatus.BOUNCE, "gone", NOW, AGES)
    assert expired is not None and expired.status == VerifyStatus.BOUNCE


def test_negative_cache_can_be_off() -> None:
    ages = Ages(1, 1, 1, 1, False)
    assert after_probe(None, VerifyStatus.DEFER, "x", NOW, ages) is None
    assert after_probe(None, VerifyStatus.OK, "x", NOW, ages) is not None


def test_a_file_survives(tmp_path: Path) -> None:
    path = str(tmp_path / "cache.lmdb")
    record = known(VerifyStatus.OK, 0)
    cache = Cache(path, None)
    cache.put(b"a@b.example", record)
    cache.put(b"l" * 2000, record)
    cache.close()
    cache = Cache(path, None)
    assert cache.get(b"a@b.example") == record
    assert cache.get(b"l" * 2000) == record
    assert len(list(cache.items())) == 2
    cache.remove([b"a@b.example"])
    assert cache.get(b"a@b.example") is None
    cache.close()


def test_a_damaged_file_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "cache.lmdb"
    path.write_bytes(b"no database" * 1000)
    cache = Cache(str(path), None)
    assert cache.get(b"x") is None
    cache.close()


@given(st.binary(max_size=60))
def test_any_bytes_are_a_record_or_none(data: bytes) -> None:
    found = decode(data)
    assert found is None or isinstance(decode(encode(found)), Known)

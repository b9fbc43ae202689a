"""What fuzzing found, and its seeds, played again: see fuzz/targets.py for what each target checks."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3]))

from fuzz.seeds import SEEDS
from fuzz.targets import TARGETS

FOUND = sorted(path for path in (Path(__file__).parent / "found").glob("*-*"))


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_found(path: Path) -> None:
    """Fixed, and quick."""
    begun = time.process_time()
    TARGETS[path.name.partition("-")[0]](path.read_bytes())
    assert time.process_time() - begun < 2


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    """Seeds keep their invariants."""
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
@given(st.data())
def test_mixtures(name: str, data: st.DataObject) -> None:
    """Pieces of the seeds in any order."""
    pieces = [seed[start : start + 8] for seed in SEEDS[name] for start in range(0, len(seed), 4)]
    TARGETS[name](b"".join(data.draw(st.lists(st.sampled_from(pieces), max_size=12))))

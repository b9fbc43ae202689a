"""nis: without a NIS domain holds nothing; with one it is refused."""

from __future__ import annotations

import pytest

from estafeta.system.immediate import run_now
from estafeta.tables.nis import EmptyNisTable
from estafeta.tables.table import OpenOptions, TableError


def test_no_domain() -> None:
    warnings: list[str] = []
    table = EmptyNisTable("mail.aliases", OpenOptions(warn=warnings.append), domain="")
    assert run_now(table.lookup("root")) is None
    assert warnings == ["NIS domain name not set - NIS lookups disabled"]


def test_domain() -> None:
    with pytest.raises(TableError, match="unsupported dictionary type: nis"):
        EmptyNisTable("mail.aliases", OpenOptions(), domain="example")

"""nis: without a NIS domain holds nothing; with one, a server that is not there is a failure."""

from __future__ import annotations

import asyncio

import pytest

from estafeta.system.immediate import run_now
from estafeta.tables.nis import EmptyNisTable, NisTable
from estafeta.tables.table import LookupFailed, OpenOptions, TableError


def test_no_domain() -> None:
    warnings: list[str] = []
    table = EmptyNisTable("mail.aliases", OpenOptions(warn=warnings.append))
    assert run_now(table.lookup("root")) is None
    assert warnings == ["NIS domain name not set - NIS lookups disabled"]


def test_domain_without_a_server() -> None:
    try:
        table = NisTable("mail.aliases", OpenOptions(), "nowhere.example")
    except TableError as error:
        pytest.skip(str(error))

    async def ask() -> None:
        with pytest.raises(LookupFailed):
            await table.lookup("root")

    asyncio.run(asyncio.wait_for(ask(), 20))
    table.close()

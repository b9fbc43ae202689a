"""Lookup tables: type:name, asked for one key at a time (DATABASE_README).

This package stays light: opening a table imports only what its type needs. ``open_table`` and ``table_types`` are
loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from estafeta.tables.table import LookupFailed, OpenOptions, Table, TableError

if TYPE_CHECKING:
    from estafeta.tables.maps import Maps, parse_map_list
    from estafeta.tables.open import open_table, table_types

__all__ = [
    "LookupFailed",
    "Maps",
    "OpenOptions",
    "Table",
    "TableError",
    "open_table",
    "parse_map_list",
    "table_types",
]

_LAZY = {
    "open_table": "estafeta.tables.open",
    "table_types": "estafeta.tables.open",
    "Maps": "estafeta.tables.maps",
    "parse_map_list": "estafeta.tables.maps",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

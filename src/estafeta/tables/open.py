"""Open a table by its name: ``type:name``.

Source: DATABASE_README, postconf(1) -m. Each type is imported when it is first asked for, so that commands start fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from estafeta.tables.table import OpenOptions, Table, TableError

INDEXED = frozenset({"hash", "btree", "dbm", "sdbm", "lmdb"})
_PATTERNS = frozenset({"regexp", "pcre", "cidr"})
_SIMPLE = frozenset({"static", "inline", "fail", "environ", "unix"})
_COMPOUND = frozenset({"pipemap", "unionmap", "randmap"})
_EXTERNAL = frozenset({"sqlite", "mysql", "pgsql", "memcache", "socketmap", "tcp", "ldap"})
_TYPES = _EXTERNAL | INDEXED | _PATTERNS | _SIMPLE | _COMPOUND | {"texthash", "proxy", "nis"}


def table_types() -> list[str]:
    """The types this system can open, sorted, as ``postconf -m`` shows them."""
    return sorted(_TYPES)


def split_spec(spec: str, default_type: str | None = None) -> tuple[str, str]:
    """``type:name`` apart; raises TableError when a part is missing."""
    kind, colon, name = spec.partition(":")
    if not colon and default_type is not None:
        return default_type, spec
    if not kind or not name:
        raise TableError(f'open dictionary: expecting "type:name" form instead of "{spec}"')
    return kind, name


def open_table(
    spec: str,
    options: OpenOptions | None = None,
    *,
    fold: bool | None = None,
    utf8: bool | None = None,
    base_directory: str | None = None,
    warn: Callable[[str], None] | None = None,
) -> Table:
    """Open ``type:name``; raises TableError with one line that says why not. Keywords override ``options``."""
    options = options or OpenOptions()
    if fold is not None:
        options = replace(options, fold=fold)
    if utf8 is not None:
        options = replace(options, utf8=utf8)
    if base_directory is not None:
        options = replace(options, base_directory=base_directory)
    if warn is not None:
        options = replace(options, warn=warn)
    return _open(spec, options)


def open_or_late(spec: str, options: OpenOptions | None = None) -> Table:
    """As ``open_table``, for daemons: a table that cannot be opened warns, fails look-ups and is tried again."""
    options = options or OpenOptions()
    try:
        return _open(spec, options)
    except TableError as err:
        from estafeta.tables.compound import LateTable

        options.warn(str(err))
        return LateTable(spec, str(err), options, _open)


def _path(name: str, options: OpenOptions) -> str:
    return os.path.join(options.base_directory, name) if options.base_directory else name


def _open(spec: str, options: OpenOptions) -> Table:
    kind, name = split_spec(spec)
    if kind == "proxy":
        # Tables are opened before the jail and with the master's privileges: what proxymap(8) is for is done already.
        kind, name = split_spec(name)
    if kind in INDEXED:
        return _open_index(kind, name, options)
    if kind in _SIMPLE:
        from estafeta.tables import accounts, simple

        makers: dict[str, Callable[[str, OpenOptions], Table]] = {
            "static": simple.StaticTable,
            "inline": simple.open_inline,
            "fail": simple.FailTable,
            "environ": simple.open_environ,
            "unix": accounts.UnixTable,
        }
        return makers[kind](name, options)
    if kind == "texthash":
        from estafeta.tables.text import TextTable

        return TextTable(_path(name, options), options, aliases=False, name=spec)
    if kind in ("regexp", "pcre"):
        from estafeta.tables.pattern import PatternTable

        return PatternTable(kind, name, options)
    if kind == "cidr":
        from estafeta.tables.cidr import CidrTable

        return CidrTable(name, options)
    if kind in _EXTERNAL:
        return _open_external(kind, name, options)
    if kind == "nis":
        from estafeta.tables.nis import open_nis

        return open_nis(name, options)
    if kind in _COMPOUND:
        from estafeta.tables import compound

        if kind == "pipemap":
            return compound.PipeTable(name, options, _open)
        if kind == "unionmap":
            return compound.UnionTable(name, options, _open)
        return compound.RandomTable(name, options)
    raise TableError(f"unsupported dictionary type: {kind}")


def _open_external(kind: str, name: str, options: OpenOptions) -> Table:
    if kind == "sqlite":
        from estafeta.tables.sqlite import SqliteTable

        return SqliteTable(name, options)
    if kind == "mysql":
        from estafeta.tables.mysql import open_mysql

        return open_mysql(name, options)
    if kind == "pgsql":
        from estafeta.tables.pgsql import open_pgsql

        return open_pgsql(name, options)
    if kind == "ldap":
        from estafeta.tables.ldap import LdapTable

        return LdapTable(name, options)
    if kind == "memcache":
        from estafeta.tables.memcache import MemcacheTable

        return MemcacheTable(name, options, _open)
    if kind == "socketmap":
        from estafeta.tables.socketmap import SocketmapTable

        return SocketmapTable(name, options)
    from estafeta.tables.tcp import TcpTable

    return TcpTable(name, options)


def _open_index(kind: str, name: str, options: OpenOptions) -> Table:
    from estafeta.tables.index import ForeignIndex, IndexTable

    path = _path(name, options)
    spec = f"{kind}:{name}"
    try:
        return IndexTable(kind, path, options, name=spec)
    except ForeignIndex as err:
        from estafeta.tables.text import TextTable

        try:
            table = TextTable(path, options, name=spec)
        except TableError:
            raise err
        options.warn(f"{err}; until then its source {path} is read instead")
        return table

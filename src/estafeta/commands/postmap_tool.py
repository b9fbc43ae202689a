"""What postmap and postalias share: query, list, delete, update.

Source: postmap(1), postalias(1). Each function prints what the manual says and returns whether something was
found; what goes wrong for good is Fatal with the line that the command prints before it exits with status 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from estafeta.tables.table import LookupFailed, OpenOptions, Table, TableError, is_utf8, no_parameter, printable

if TYPE_CHECKING:
    import asyncio


class Fatal(Exception):
    """The command ends with this line and status 1."""


@dataclass(slots=True)
class Request:
    """The command line."""

    program: str
    letters: str
    usage: str
    aliases: bool = False
    config_directory: str | None = None
    flags: set[str] = field(default_factory=set)
    query: str | None = None
    delete: str | None = None
    operands: list[str] = field(default_factory=list)
    default_type: str = "hash"
    utf8: bool = True
    hostname: str = "localhost"
    parameter: Callable[[str], str | None] = no_parameter  # of main.cf
    runner: asyncio.Runner | None = None  # once a table had to wait for the network

    def warn(self, text: str) -> None:
        """Print a warning."""
        print(f"{self.program}: warning: {text}", file=sys.stderr)

    @property
    def fold(self) -> bool:
        """Whether keys are folded."""
        return "f" not in self.flags

    def options(self) -> OpenOptions:
        """How tables are opened."""
        return OpenOptions(fold=self.fold, utf8=self.utf8, warn=self.warn, parameter=self.parameter)


def parse_command_line(request: Request, arguments: Sequence[str]) -> None:
    """Fill ``request``; raises Fatal."""
    import getopt

    try:
        options, request.operands = getopt.getopt(list(arguments), request.letters)
    except getopt.GetoptError as err:
        kind = "option requires an argument" if "requires" in err.msg else "invalid option"
        print(f"{request.program}: {kind} -- '{err.opt}'", file=sys.stderr)
        raise Fatal(request.usage)
    for option, value in options:
        letter = option[1]
        if letter == "c":
            request.config_directory = value
        elif letter in "qd":
            if request.query is not None or request.delete is not None or "s" in request.flags:
                raise Fatal("specify only one of -s -q or -d")
            if letter == "q":
                request.query = value
            else:
                request.delete = value
        else:
            if letter == "s" and (request.query is not None or request.delete is not None):
                raise Fatal("specify only one of -s or -q or -d")
            request.flags.add(letter)


def load_settings(request: Request) -> None:
    """Take default_database_type and smtputf8_enable from main.cf; raises Fatal."""
    from estafeta.config.config import load_config
    from estafeta.config.errors import ConfigError

    try:
        config = load_config(request.config_directory)
        request.default_type = config.get("default_database_type")
        request.parameter = config.lookup
        if request.aliases:
            request.hostname = config.get("myhostname")
        request.utf8 = config.bool("smtputf8_enable") and "u" not in request.flags
    except (ConfigError, OSError) as err:
        raise Fatal(str(err))


def specs_of(request: Request) -> list[str]:
    """The operands with a type."""
    if not request.operands:
        raise Fatal(request.usage)
    return [name if ":" in name else f"{request.default_type}:{name}" for name in request.operands]


def open_all(request: Request, specs: Iterable[str]) -> Iterator[Table]:
    """Open the tables one by one; raises Fatal."""
    from estafeta.tables.open import open_table

    for spec in specs:
        try:
            yield open_table(spec, request.options())
        except TableError as err:
            raise Fatal(str(err))


# --- queries -------------------------------------------------------------------------------------------------------


def _ask(request: Request, table: Table, key: str) -> str | None:
    from estafeta.system.immediate import WouldWait, run_now

    if request.utf8 and not is_utf8(key):
        request.warn(f'{table.name}: non-UTF-8 key "{printable(key)}": malformed UTF-8 or invalid codepoint')
        return None
    try:
        value = run_now(table.lookup(key)) if request.runner is None else _ask_waiting(table, key, request)
    except LookupFailed as err:
        raise Fatal(f"table {table.name}: query error: {err.reason}")
    except WouldWait:
        value = _ask_waiting(table, key, request)
    if value == "":
        request.warn(f"table {table.name}: key {key}: empty string result is not allowed")
        request.warn(f"table {table.name} should return NO RESULT in case of NOT FOUND")
    if value is not None and "F" in request.flags:
        value = _decoded(table.name, key, value)
    return value


def _ask_waiting(table: Table, key: str, request: Request) -> str | None:
    """The answer of a table on the network; one loop serves the whole command, so that connections are kept."""
    import asyncio

    if request.runner is None:
        request.runner = asyncio.Runner()
    try:
        return request.runner.run(_whole(table, key))
    except LookupFailed as err:
        raise Fatal(f"table {table.name}: query error: {err.reason}")


async def _whole(table: Table, key: str) -> str | None:
    return await table.lookup(key)


def _decoded(name: str, key: str, value: str) -> str:
    import base64
    import binascii

    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Fatal(f"table {name}: key {key}: malformed BASE64 value")
    return data.decode("utf-8", "surrogateescape")


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))


def query_one(request: Request, specs: list[str], key: str) -> bool:
    """Print the first value found."""
    for table in open_all(request, specs):
        value = _ask(request, table, key)
        if value is not None:
            _write(value + "\n")
            return True
    return False


def query_many(request: Request, specs: list[str], keys: Iterable[str]) -> bool:
    """Print key and value of each key that is found."""
    tables = list(open_all(request, specs))
    separator = ":\t" if request.aliases else "\t"
    found = False
    for key in keys:
        for table in tables:
            value = _ask(request, table, key)
            if value is not None:
                found = True
                _write(f"{key}{separator}{value}\n")
                break
    return found


def input_lines() -> Iterator[str]:
    """The lines of standard input, without their ends."""
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def list_all(request: Request, specs: list[str]) -> bool:
    """Print every entry of the tables."""
    separator = ":\t" if request.aliases else "\t"
    for table in open_all(request, specs):
        items: Callable[[], Iterator[tuple[str, str]]] | None = getattr(table, "items", None)
        if items is None:
            raise Fatal(f"table {table.name}: sequence operation is not supported")
        out: list[str] = []
        try:
            for key, value in items():
                if "F" in request.flags:
                    value = _decoded(table.name, key, value)
                out.append(f"{key}{separator}{value}\n")
        except LookupFailed as err:
            raise Fatal(str(err))
        _write("".join(out))
    return True


# --- changes -------------------------------------------------------------------------------------------------------


def _indexed(spec: str, refusal: str) -> tuple[str, str]:
    from estafeta.tables.index import index_path
    from estafeta.tables.open import INDEXED, split_spec, table_types

    try:
        kind, path = split_spec(spec)
    except TableError as err:
        raise Fatal(str(err))
    if kind not in table_types():
        raise Fatal(f"unsupported dictionary type: {kind}. Is the postfix-{kind} package installed?")
    if kind not in INDEXED:
        raise Fatal(refusal.format(kind=kind, spec=spec))
    return path, index_path(kind, path)


def _fail(path: str, err: OSError) -> NoReturn:
    raise Fatal(f"open database {path}: {err.strerror}") from err


def delete_keys(request: Request, specs: list[str], keys: list[str]) -> bool:
    """Remove the keys from every table."""
    from estafeta.tables.entries import fold_bytes
    from estafeta.tables.index_write import exclusive, read_index, write_index

    found = False
    for spec in specs:
        _, index = _indexed(spec, "table {spec}: delete operation is not supported")
        try:
            with running_as_owner(request, index), exclusive(index):
                entries = read_index(index)
                before = len(entries)
                for key in keys:
                    raw = key.encode("utf-8", "surrogateescape")
                    entries.pop(fold_bytes(raw) if request.fold else raw, None)
                if len(entries) != before:
                    found = True
                    write_index(index, entries, 0o644, nul="n" not in request.flags)
        except OSError as err:
            _fail(index, err)
        except TableError as err:
            raise Fatal(str(err))
    return found


def file_contents(value: bytes) -> bytes:
    """-F: the files named in ``value``, joined by a newline, in Base64; raises OSError."""
    import base64

    parts = []
    for name in value.replace(b",", b" ").split():
        with open(name, "rb") as file:
            parts.append(file.read())
    return base64.b64encode(b"\n".join(parts))


@contextmanager
def running_as_owner(request: Request, path: str, source: os.stat_result | None = None) -> Iterator[None]:
    """As root, act as the owner of the source file (postmap(1) -o turns that off)."""
    if os.geteuid() != 0 or "o" in request.flags:
        yield
        return
    if source is None:
        try:
            source = os.stat(path)
        except FileNotFoundError:
            yield
            return
    if source.st_uid == 0:
        yield
        return
    groups = os.getgroups()
    gid = os.getegid()
    os.setgroups([source.st_gid])
    os.setegid(source.st_gid)
    os.seteuid(source.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def update(request: Request, spec: str) -> None:
    """Make the index of ``spec`` from its source, or (-i) add the entries of standard input."""
    from estafeta.tables.entries import EntryReader
    from estafeta.tables.index_write import exclusive, new_file_mode, read_index, write_index

    path, index = _indexed(spec, "unsupported dictionary type: {kind} does not support bulk-mode creation.")
    incremental = "i" in request.flags
    source: os.stat_result | None = None
    data = b""
    if incremental:
        data = sys.stdin.buffer.read()
    else:
        try:
            with open(path, "rb") as file:
                source = os.fstat(file.fileno())
                data = file.read()
        except OSError as err:
            raise Fatal(f"open {path}: {err.strerror}")
    reader = EntryReader(
        "stdin" if incremental else path,
        request.warn,
        fold=request.fold,
        utf8=request.utf8,
        on_duplicate="replace" if "r" in request.flags else "ignore" if "w" in request.flags else "warn",
        value_of=file_contents if "F" in request.flags else None,
        duplicate_prefix=spec if spec.startswith("lmdb:") else index,
    )
    try:
        with running_as_owner(request, index, source):
            if incremental and os.path.exists(index):
                with exclusive(index):
                    reader.entries = read_index(index)
                    _read(request, reader, data)
                    write_index(index, reader.entries, 0o644, nul="n" not in request.flags)
                return
            _read(request, reader, data)
            mode = new_file_mode(source, "p" not in request.flags)
            # Locked as well, so that an incremental change under way is not lost nor undoes this one.
            with exclusive(index):
                write_index(index, reader.entries, mode, nul="n" not in request.flags)
    except OSError as err:
        _fail(index, err)
    except TableError as err:
        raise Fatal(str(err))


def _read(request: Request, reader: object, data: bytes) -> None:
    from estafeta.tables.entries import EntryReader

    assert isinstance(reader, EntryReader)
    if not request.aliases:
        reader.read_map_fast(data)
        return
    reader.read_aliases(data)
    # What Sendmail and NIS programs expect in an alias database.
    import time

    reader.entries[b"@"] = b"@"
    reader.entries[b"YP_LAST_MODIFIED"] = str(int(time.time())).encode()
    reader.entries[b"YP_MASTER_NAME"] = request.hostname.encode()


def run(request: Request) -> int:
    """Do what the command line asks; the exit status."""
    specs = specs_of(request)
    if request.query is not None:
        if request.query != "-":
            if request.flags & {"b", "h", "m"}:
                raise Fatal('specify -b -h or -m only with "-q -"')
            return 0 if query_one(request, specs, request.query) else 1
        if not request.aliases and "m" in request.flags and not request.flags & {"b", "h"}:
            request.warn("ignoring -m option without -b or -h")
        if not request.aliases and request.flags & {"b", "h"}:
            from estafeta.commands.postmap_message import message_keys

            if "U" not in request.flags:
                request.utf8 = False
            keys: Iterable[str] = message_keys(
                sys.stdin.buffer,
                headers="h" in request.flags,
                body="b" in request.flags,
                mime="m" in request.flags,
            )
        else:
            keys = input_lines()
        return 0 if query_many(request, specs, keys) else 1
    if request.flags & {"b", "h", "m"}:
        raise Fatal('specify -b -h or -m only with "-q -"')
    if request.delete is not None:
        doomed = list(input_lines()) if request.delete == "-" else [request.delete]
        return 0 if delete_keys(request, specs, doomed) else 1
    if "s" in request.flags:
        list_all(request, specs)
        return 0
    # Millions of entries, none of them garbage: the collector would only walk over them again and again.
    import gc

    gc.disable()
    for spec in specs:
        update(request, spec)
    return 0


def command(request: Request, arguments: Sequence[str]) -> int:
    """The whole program: parse, read main.cf, act; errors become one line and status 1."""
    try:
        parse_command_line(request, arguments)
        if not request.operands:
            raise Fatal(request.usage)
        load_settings(request)
        status = run(request)
        sys.stdout.flush()
        return status
    except Fatal as err:
        sys.stdout.flush()
        print(f"{request.program}: fatal: {err}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        if request.runner is not None:
            request.runner.close()

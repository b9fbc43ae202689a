"""main.cf: reading settings, and editing the file while keeping the administrator's text.

Source: postconf(5) "The general format of the main.cf file", postconf(1) options -e, -# and -X.

Invariants: a logical line starts with non-white-space text; lines that start with white space continue it; comment and
blank lines never end it and are kept, whatever is edited. The last setting of a name wins. Edits replace the file
atomically (temporary file, sync, rename) and keep its mode and owner.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from estafeta.config.errors import ConfigError
from estafeta.config.rewrite_file import replace_file


class Setting(NamedTuple):
    """One `name = value` of main.cf; `line` is where its logical line starts (from 1)."""

    name: str
    value: str
    line: int


class MainCf(NamedTuple):
    """A parsed main.cf: `settings` by name (last one wins), and `warnings`, one line each with its place."""

    path: str
    settings: dict[str, Setting]
    warnings: tuple[str, ...]


class LogicalLine(NamedTuple):
    """A logical line: its joined `text`, and the physical lines (numbers from 1) that belong to it."""

    text: str
    line: int
    physical: tuple[int, ...]


def read_text(path: str) -> str:
    """The text of a configuration file; bytes that are no UTF-8 survive as surrogates. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ConfigError(f"open {path}: {error.strerror}") from None


def logical_lines(lines: Iterable[str], warnings: list[str] | None = None) -> Iterator[LogicalLine]:
    """Join continuation lines; leave out comments and blank lines. `lines` come without their newline.

    A continuation line without a line to continue is reported in `warnings` and skipped.
    """
    parts: list[str] = []
    numbers: list[int] = []
    for number, line in enumerate(lines, 1):
        bare = line.strip(" \t\r\f\v")
        if not bare or bare[0] == "#":
            continue
        if line[0] in " \t\r\f\v":
            if parts:
                parts.append(line)
                numbers.append(number)
            elif warnings is not None:
                warnings.append(f'logical line must not start with whitespace: "{line[:30]}"')
            continue
        if parts:
            yield LogicalLine("".join(parts), numbers[0], tuple(numbers))
        parts, numbers = [line], [number]
    if parts:
        yield LogicalLine("".join(parts), numbers[0], tuple(numbers))


def split_name_value(text: str) -> tuple[str, str]:
    """Split `name = value`; raises ValueError with Postfix's reason (no location)."""
    stripped = text.strip()
    name = stripped.partition("=")[0]
    words = name.split(None, 1)
    if not words:
        if stripped.startswith("="):
            raise ValueError(f'missing attribute name: "{text}"')
        raise ValueError(f"missing '=' after attribute name: \"{text}\"")
    if len(words) > 1 or len(name) == len(stripped):
        raise ValueError(f"missing '=' after attribute name: \"{text}\"")
    return words[0], stripped[len(name) + 1 :].strip()


def parse_main_cf(text: str, path: str = "main.cf") -> MainCf:
    """Parse the text of a main.cf. Raises ConfigError with file, line and reason."""
    settings: dict[str, Setting] = {}
    warnings: list[str] = []
    stray: list[str] = []
    for line in logical_lines(text.split("\n"), stray):
        try:
            name, value = split_name_value(line.text)
        except ValueError as error:
            raise ConfigError(str(error), path, line.line) from None
        earlier = settings.pop(name, None)
        if earlier is not None and earlier.value != value:
            warnings.append(f"{path}, line {line.line}: overriding earlier entry: {name}={earlier.value}")
        settings[name] = Setting(name, value, line.line)
    return MainCf(path, settings, (*(f"{path}: {text}" for text in stray), *warnings))


def read_main_cf(directory: str) -> MainCf:
    """Read `directory`/main.cf. Raises ConfigError."""
    path = f"{directory}/main.cf"
    return parse_main_cf(read_text(path), path)


class EditResult(NamedTuple):
    """The edited text, and the names that had more than one entry (each was edited)."""

    text: str
    repeated: tuple[str, ...]


def _entries(text: str) -> Iterator[tuple[str, LogicalLine]]:
    for line in logical_lines(text.split("\n")):
        name = line.text.partition("=")[0].strip()
        yield name, line


def edit_text(
    text: str, update: Mapping[str, str] | None = None, comment: Iterable[str] = (), remove: Iterable[str] = ()
) -> EditResult:
    """Set, comment out or remove parameters in the text of a main.cf; everything else stays as it is.

    A name that is set and has no entry yet is added at the end. Comment lines within an entry are kept.
    """
    update = dict(update or {})
    comment, remove = set(comment), set(remove)
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    replaced: dict[int, str | None] = {}
    seen: dict[str, int] = {}
    for name, entry in _entries(text):
        if name not in update and name not in comment and name not in remove:
            continue
        seen[name] = seen.get(name, 0) + 1
        for index, number in enumerate(entry.physical):
            if name in update:
                replaced[number] = f"{name} = {update[name]}" if index == 0 else None
            elif name in comment:
                replaced[number] = f"#{lines[number - 1]}"
            else:
                replaced[number] = None
    edited: list[str] = []
    for number, line in enumerate(lines, 1):
        new = replaced.get(number, line)
        if new is not None:
            edited.append(new)
    edited += [f"{name} = {value}" for name, value in update.items() if name not in seen]
    repeated = tuple(name for name, count in seen.items() if count > 1)
    return EditResult("".join(f"{line}\n" for line in edited), repeated)


def edit_main_cf(
    directory: str,
    update: Mapping[str, str] | None = None,
    comment: Iterable[str] = (),
    remove: Iterable[str] = (),
) -> EditResult:
    """Edit `directory`/main.cf in place (see `edit_text`); atomic. Raises ConfigError."""
    path = f"{directory}/main.cf"
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ConfigError(f"open {path} for reading: {error.strerror}") from None
    result = edit_text(text, update, comment, remove)
    replace_file(path, result.text.encode("utf-8", "surrogateescape"))
    return result


def default_directory() -> str:
    """The configuration directory without `-c`: $MAIL_CONFIG, else /etc/postfix."""
    return os.environ.get("MAIL_CONFIG") or "/etc/postfix"

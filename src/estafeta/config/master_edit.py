"""Printing master.cf entries, and editing the file while keeping the rest of its text.

Source: postconf(1) -M, -F, -P and their -e, -X and -# forms; layout measured with Postfix 3.7.
Invariant: lines of entries that are not edited, comments and blank lines stay as they are; an edited entry is printed
anew, folded, where it began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from estafeta.config.errors import ConfigError
from estafeta.config.master_cf import MasterEntry, parse_entries
from estafeta.config.rewrite_file import replace_file

_COLUMNS = (0, 11, 17, 25, 33, 41, 49, 57)
MAIN_LIMIT = 80
MASTER_LIMIT = 79
INDENT = "    "


class Folder:
    """Builds one logical line from words, folded at `limit` columns if `fold` is set."""

    def __init__(self, start: str, fold: bool, limit: int = MAIN_LIMIT) -> None:
        self.lines = [start]
        self.fold = fold
        self.limit = limit

    def same_line(self, word: str) -> None:
        """Add a word; start a new line only if it would not fit."""
        if self.fold and len(self.lines[-1]) + 1 + len(word) > self.limit and self.lines[-1]:
            self.lines.append(INDENT + word)
        else:
            self.lines[-1] += f" {word}" if self.lines[-1] else word

    def new_line(self, word: str) -> None:
        """Add a word on a line of its own when folding."""
        if self.fold:
            self.lines.append(INDENT + word)
        else:
            self.same_line(word)

    def text(self) -> str:
        """The finished text."""
        return "\n".join(self.lines)


def print_command(words: Iterable[str], folder: Folder) -> None:
    """Add a command with its options (each on a line of its own when folding) and arguments."""
    rest = iter(words)
    folder.same_line(next(rest))
    options = False
    for word in rest:
        if not word.startswith("-") or word == "-":
            if options:
                folder.new_line(word)
            else:
                folder.same_line(word)
            break
        options = True
        folder.new_line(word)
        if word == "-o" and (value := next(rest, None)) is not None:
            folder.lines[-1] += f" {value}"
    for word in rest:
        folder.same_line(word)


def print_entry(entry: MasterEntry, fold: bool = False) -> str:
    """An entry as `postconf -M` shows it (`-Mf` with `fold`), without a final newline."""
    text = ""
    for column, value in zip(_COLUMNS, entry.fields, strict=False):
        text = f"{text} " if text else ""
        text = text.ljust(column) + value
    folder = Folder(f"{text} ".ljust(_COLUMNS[7])[:-1], fold, MASTER_LIMIT)
    print_command(entry.words, folder)
    return folder.text()


def read_for_edit(directory: str) -> tuple[str, list[str], list[MasterEntry]]:
    """The path, the lines and the entries of `directory`/master.cf. Raises ConfigError."""
    path = f"{directory}/master.cf"
    try:
        with open(path, "rb") as file:
            text = file.read().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ConfigError(f"open {path} for reading: {error.strerror}") from None
    lines = text.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return path, lines, parse_entries(text, path)


Change = Callable[[MasterEntry], "MasterEntry | str | None"]


def edit_master(directory: str, change: Change, append: Iterable[MasterEntry] = ()) -> None:
    """Edit master.cf: `change` gets each entry and returns it (kept), another one, None (remove) or "#" (comment out).

    Raises ConfigError. The file is replaced atomically.
    """
    path, lines, entries = read_for_edit(directory)
    replaced: dict[int, str | None] = {}
    for entry in entries:
        result = change(entry)
        if result is entry:
            continue
        for index, number in enumerate(entry.physical):
            if isinstance(result, MasterEntry):
                replaced[number] = print_entry(result, fold=True) if index == 0 else None
            else:
                replaced[number] = f"#{lines[number - 1]}" if result == "#" else None
    edited = [replaced.get(number, line) for number, line in enumerate(lines, 1)]
    kept = [line for line in edited if line is not None] + [print_entry(entry, fold=True) for entry in append]
    replace_file(path, "".join(f"{line}\n" for line in kept).encode("utf-8", "surrogateescape"))

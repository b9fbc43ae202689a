"""texthash: a plain postmap source read into memory, and the fall-back for an index that another program made.

Source: DATABASE_README (texthash). The file name is taken literally. Unlike Postfix we read it again when it changes.
"""

from __future__ import annotations

from collections.abc import Iterator

from estafeta.tables.entries import EntryReader
from estafeta.tables.table import LookupFailed, OpenOptions, TableError, fold_key, is_utf8
from estafeta.tables.watch import FileWatch


class TextTable:
    """texthash:"""

    is_pattern = False

    def __init__(
        self, path: str, options: OpenOptions, name: str | None = None, aliases: bool | None = None
    ) -> None:
        """``aliases``: read ``name: value`` lines; None: by the look of the file. Raises TableError."""
        self.name = name or f"texthash:{path}"
        self._path = path
        self._options = options
        self._aliases = False if aliases is None and name is None else aliases
        self._watch = FileWatch(path, options.clock, options.check_interval_s)
        try:
            self._entries = self._read()
        except OSError as err:
            raise TableError(f"open database {path}: {err.strerror}") from err
        self._closed = False

    def _read(self) -> dict[bytes, bytes]:
        with open(self._path, "rb") as file:
            data = file.read()
        options = self._options
        reader = EntryReader(
            self._path, options.warn, fold=options.fold, utf8=options.utf8, ignoring=" -- ignoring this line"
        )
        aliases = self._aliases
        if aliases is None:
            aliases = looks_like_aliases(data)
        if aliases:
            reader.read_aliases(data)
        else:
            reader.read_map_fast(data)
        return reader.entries

    async def lookup(self, key: str) -> str | None:
        """The value of ``key``; raises LookupFailed when the table is closed."""
        if self._closed:
            raise LookupFailed(self.name, "the table is closed")
        stamp = self._watch.changed()
        if stamp is not None:
            try:
                self._entries = self._read()
            except OSError:
                pass  # being replaced: the old entries stay in use
            else:
                self._watch.accept(stamp)
        if self._options.utf8 and not is_utf8(key):
            return None
        if self._options.fold:
            key = fold_key(key)
        value = self._entries.get(key.encode("utf-8", "surrogateescape"))
        return None if value is None else value.decode("utf-8", "surrogateescape")

    def items(self) -> Iterator[tuple[str, str]]:
        """Every entry in the order of the file."""
        for key, value in self._entries.items():
            yield key.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Forget the entries."""
        self._closed = True
        self._entries = {}


def looks_like_aliases(data: bytes) -> bool:
    """Whether the first entry has the form ``name: value``."""
    for line in data.split(b"\n"):
        stripped = line.strip()
        if not stripped or stripped.startswith(b"#"):
            continue
        head = stripped.split(None, 1)[0]
        return head.endswith(b":") or (b":" in head and b"@" not in head)
    return False

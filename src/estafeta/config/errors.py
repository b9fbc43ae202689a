"""The one exception of the configuration room, and the value that reports a problem without raising.

Source: the wording follows what an administrator sees from Postfix's own programs ("file, line N: reason").
Invariant: `str(error)` is one line, fit for a terminal or the log, never a traceback.
"""

from __future__ import annotations

from typing import NamedTuple


class ConfigError(Exception):
    """A configuration file cannot be used: `reason`, and where known the file (`path`), the `line` and a `remedy`."""

    def __init__(self, reason: str, path: str | None = None, line: int | None = None, remedy: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path
        self.line = line
        self.remedy = remedy

    def __str__(self) -> str:
        where = ""
        if self.path is not None:
            where = f"{self.path}, line {self.line}: " if self.line else f"{self.path}: "
        text = f"{where}{self.reason}"
        if self.remedy:
            text += f" ({self.remedy})"
        return text.replace("\n", " ")


class ConfigProblem(NamedTuple):
    """Something wrong in the configuration. `severity` is "fatal" or "warning"; `line` is 0 where it has no line."""

    severity: str
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        where = f"{self.path}, line {self.line}" if self.line else self.path
        return f"{self.severity}: {where}: {self.text}" if where else f"{self.severity}: {self.text}"

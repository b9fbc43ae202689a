"""Certificates and sasldb files that are renewed under a running system: the master notices and has the workers replaced.

Source: TLS_README ("smtpd processes re-read ... when they are restarted"): Postfix's processes live for a hundred clients and meet
the new file soon; our workers live long, and cannot read a key of root's. Invariant: files that would not work (half written,
key and certificate of different pairs) replace nothing; they are named once and looked at again when they change.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from estafeta.config.config import Config
from estafeta.sasl.check import sasl_files, sasl_problem
from estafeta.tls.check import tls_files, tls_problem

CHECK_S = 5.0


Stamp = tuple[int, int, int] | None


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _files(program: str, config: Config) -> list[str]:
    return [*tls_files(program, config), *sasl_files(program, config)]


@dataclass(slots=True)
class Renewal:
    """The files of one service, as they were when its workers were told last."""

    program: str
    config: Config
    _stamps: dict[str, Stamp] = field(init=False)
    _tried: dict[str, Stamp] = field(init=False)

    def __post_init__(self) -> None:
        self._stamps = {path: _stamp(path) for path in _files(self.program, self.config)}
        self._tried = self._stamps

    @property
    def watches(self) -> bool:
        """Whether there is a file to watch."""
        return bool(self._stamps)

    def due(self, warn: Callable[[str], None]) -> bool:
        """Whether the files have changed and would work: the workers should be replaced now."""
        now = {path: _stamp(path) for path in self._stamps}
        if now in (self._stamps, self._tried):
            return False
        self._tried = now
        problem = tls_problem(self.program, self.config)
        if problem is not None:
            warn(f"{self.program}: new certificate files are not taken: {problem}")
            return False
        problem = sasl_problem(self.program, self.config)
        if problem is not None:
            warn(f"{self.program}: a new sasldb is not taken: {problem}")
            return False
        self._stamps = now
        return True

"""Certificates that are renewed under a running system: the master notices and has the workers replaced.

Source: TLS_README ("smtpd processes re-read ... when they are restarted"): Postfix's processes live for a hundred clients and meet
the new file soon; our workers live long, and cannot read a key of root's. Invariant: files that would not work (half written, key and
certificate of different pairs) replace nothing; they are named once and looked at again when they change.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.tls.client import ClientTls, client_files
from estafeta.tls.key_files import TlsSetupError
from estafeta.tls.server import open_server_context, read_server_tls, server_files

CHECK_S = 5.0


def _quiet(text: str) -> None:
    """The workers say it."""


def _own(program: str) -> Callable[[str], str]:
    return lambda name: "lmtp_" + name.removeprefix("smtp_") if program == "lmtp" else name


def tls_problem(program: str, config: Config) -> str | None:
    """Why TLS of a service would not work with the files as they are now; None if it would, or is not asked for."""
    try:
        if program == "smtpd":
            tls = read_server_tls(config, _quiet)
            if tls.offered:
                open_server_context(config, tls)
        elif program in ("smtp", "lmtp"):
            ClientTls(config, _own(program))
    except (TlsSetupError, ConfigError, OSError) as error:
        return str(error)
    return None


def tls_files(program: str, config: Config) -> list[str]:
    """The files that the TLS of a service is made of."""
    try:
        if program == "smtpd":
            return server_files(config) if read_server_tls(config, _quiet).offered else []
        return client_files(config, _own(program)) if program in ("smtp", "lmtp") else []
    except ConfigError:
        return []


Stamp = tuple[int, int, int] | None


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@dataclass(slots=True)
class Renewal:
    """The files of one service, as they were when its workers were told last."""

    program: str
    config: Config
    _stamps: dict[str, Stamp] = field(init=False)
    _tried: dict[str, Stamp] = field(init=False)

    def __post_init__(self) -> None:
        self._stamps = {path: _stamp(path) for path in tls_files(self.program, self.config)}
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
        self._stamps = now
        return True

"""What the master imports before it forks, so that a worker needs no file of the installation: it may be in a jail, or belong to
a user who cannot read where Python lives.

libraries.md section 15 names what loads lazily: codecs, idna tables, strptime, the event loop. A test starts every service in an
empty jail.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

_MODULES = (
    "asyncio", "uvloop", "msgspec", "lmdb", "idna", "idna.uts46data", "re2", "setproctitle", "encodings.idna",
    "encodings.punycode", "encodings.latin_1", "encodings.ascii", "encodings.utf_8", "_strptime", "concurrent.futures.thread",
    "asyncio.selector_events", "multiprocessing", "subprocess", "tempfile", "ctypes.util", "ipaddress", "socket", "ssl",
    "stringprep", "email.utils", "locale", "zoneinfo", "signal", "queue", "json", "fnmatch", "glob", "shlex", "copy", "mmap",
)  # fmt: skip
_OPTIONAL = frozenset(("uvloop", "re2", "setproctitle", "idna.uts46data"))
_PACKAGES = ("daemons", "service", "delivery", "clients", "spool", "tables", "dns", "tls", "sasl", "ipc", "config",
             "protocol", "mail", "system")  # fmt: skip


def preload(warn: Callable[[str], None]) -> None:
    """Import everything; a missing optional library is named once."""
    for name in _MODULES:
        try:
            importlib.import_module(name)
        except ImportError:
            if name not in _OPTIONAL:
                raise
            warn(f"optional library {name} is not installed")
    for package in _PACKAGES:
        top = importlib.import_module(f"estafeta.{package}")
        for module in pkgutil.walk_packages(top.__path__, top.__name__ + "."):
            importlib.import_module(module.name)
    "x".encode("idna")

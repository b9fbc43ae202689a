"""What the master knows of one service: its line, its program, its sockets and its workers.

Source: master(5), master(8). Invariant: a program of Postfix's that is not there yet stops nothing; a misspelt one is an error.
"""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.config.master_cf import MasterService
from estafeta.config.programs import KNOWN_PROGRAMS
from estafeta.master.child import ServiceState
from estafeta.master.renewal import Renewal
from estafeta.service.daemon import Daemon
from estafeta.system import privilege

NOT_NEEDED = frozenset(("flush", "proxymap", "scache", "tlsmgr"))  # others do what they are for: docs/differs.md
ALIASES = {"nqmgr": "qmgr", "oqmgr": "qmgr", "lmtp": "smtp", "retry": "error", "defer": "bounce", "trace": "bounce"}


def load_daemon(command: str) -> type[Daemon]:
    """The class of the program ``command`` of a master.cf line; raises ConfigError."""
    name = command.rpartition("/")[2]
    module = ALIASES.get(name, name).replace("-", "_")
    try:
        found = importlib.import_module(f"estafeta.daemons.{module}")
    except ModuleNotFoundError as error:
        if error.name == f"estafeta.daemons.{module}":
            raise ConfigError(f"master.cf: program {name} is not implemented") from None
        raise
    daemon: type[Daemon] = found.DAEMON
    return daemon


@dataclass
class Running:
    """A service and its workers."""

    service: MasterService
    daemon_class: type[Daemon]
    config: Config
    state: ServiceState
    listeners: list[socket.socket]
    slots: dict[int, int] = field(default_factory=dict)  # pid -> worker number
    status_fds: dict[int, int] = field(default_factory=dict)  # pid -> status pipe
    next_wakeup: float = 0.0
    retired: set[int] = field(default_factory=set)  # pids of workers told to drain
    renewal: Renewal | None = None  # certificate files that may be renewed
    wanted_at: float = 0.0  # start one at this time although nobody asks (a service that stays)


def find_daemon(service: MasterService, warn: Callable[[str], None]) -> type[Daemon] | None:
    """The program of a service; None, with a warning, for one of Postfix's that is not there yet. Raises ConfigError."""
    name = service.command.rpartition("/")[2]
    if service.type == "pass":  # connections that postscreen hands on
        warn(f"service {service.name}/{service.type}: postscreen is not implemented: not started")
        return None
    try:
        return load_daemon(name)
    except ConfigError:
        if name not in KNOWN_PROGRAMS and name != service.name:
            raise  # postfix check tells a misspelt program from an agent of the administrator's own
        if name not in NOT_NEEDED:
            warn(f"service {service.name}/{service.type}: {name} is not implemented: not started")
        return None


def socket_owner(config: Config) -> tuple[int, int] | None:
    """Whom the Unix sockets belong to: mail_owner, None for whoever runs us. Raises ConfigError."""
    if not privilege.is_root():
        return None
    user = privilege.find_user(config.get("mail_owner"))
    if user is None:
        raise ConfigError(f"main.cf: mail_owner: unknown user {config.get('mail_owner')}")
    return user.uid, user.gid

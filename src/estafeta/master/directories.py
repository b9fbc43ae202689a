"""The queue directory and what lies in it, made before anything starts.

``mail_owner = root`` (Postfix refuses it) means that every service runs as root: ``make run`` in a container does so.

Source: postfix(1) check and set-permissions, the modes that Debian's Postfix gives. As root the queues belong to mail_owner, and
``maildrop`` and ``public`` to setgid_group as well; without root everything belongs to the caller. ``public`` may be searched by
everybody, because no command is setgid here: the modes of its sockets say who may talk to whom (ADR 0004).
"""

from __future__ import annotations

import os

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.spool.layout import OWN_DIRECTORIES
from estafeta.system import privilege

_MODES = {"maildrop": 0o1730, "public": 0o2711, "private": 0o700, "pid": 0o755}


def prepare_directories(config: Config) -> None:
    """Make what is missing and mend owners and modes; raises ConfigError or OSError."""
    queue = config.get("queue_directory")
    root = privilege.is_root()
    owner_uid = owner_gid = group = -1
    if root:
        name = config.get("mail_owner")
        user = privilege.find_user(name)
        if user is None:
            raise ConfigError(f"parameter mail_owner: unknown user: {name}", config.path)
        owner_uid, owner_gid = user.uid, user.gid
        found = privilege.find_group(config.get("setgid_group"))
        if found is None:
            raise ConfigError(f"parameter setgid_group: unknown group: {config.get('setgid_group')}", config.path)
        group = found
    _make("queue_directory", queue, 0o755, config)
    for name in (*OWN_DIRECTORIES, *_MODES):
        path = os.path.join(queue, name)
        mode = _MODES.get(name, 0o700)
        os.makedirs(path, mode, exist_ok=True)
        if root:
            uid = 0 if name == "pid" else owner_uid
            gid = group if name in ("maildrop", "public") else (0 if name == "pid" else owner_gid)
            stat = os.stat(path)
            if (stat.st_uid, stat.st_gid) != (uid, gid):
                os.chown(path, uid, gid)
        if os.stat(path).st_mode & 0o7777 != mode:
            try:
                os.chmod(path, mode)
            except PermissionError:
                pass
    data = config.get("data_directory")
    _make("data_directory", data, 0o700, config)
    if root and os.stat(data).st_uid != owner_uid:
        os.chown(data, owner_uid, owner_gid)


def _make(parameter: str, path: str, mode: int, config: Config) -> None:
    try:
        os.makedirs(path, mode, exist_ok=True)
        writable = os.access(path, os.W_OK | os.X_OK)
    except OSError as error:
        raise config.error(parameter, f"cannot make directory {path}: {error.strerror}") from None
    if not writable:
        raise config.error(parameter, f"directory {path} is not writable: Permission denied")

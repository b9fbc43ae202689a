"""The jail of an instance, if any service of master.cf runs in one: brought up to date, and looked over by `postfix check`.

Source: master(5) chroot, postfix(1) check. Only root can jail: for anybody else there is nothing to do.
"""

from __future__ import annotations

import os

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError, ConfigProblem
from estafeta.config.master_cf import jails_by_default, load_master_cf
from estafeta.system import privilege
from estafeta.system.jail_files import differing_files, foreign_files, refresh_jail


def has_jails(config: Config) -> bool:
    """Whether a service runs with the queue directory for its root."""
    if not privilege.is_root():
        return False
    try:
        disabled = config.words("master_service_disable")
        services = load_master_cf(config.directory, disabled, jail_default=jails_by_default(config))
    except ConfigError:
        return False  # reported with its own line
    return any(service.chroot for service in services)


def prepare_jail(config: Config) -> list[str]:
    """Copy what services in a jail look at below the queue directory; a line for each copy that could not be made."""
    if not has_jails(config):
        return []
    return refresh_jail(config.get("queue_directory"), zone=os.environ.get("TZ", ""))


def jail_problems(config: Config) -> list[ConfigProblem]:
    """Copies in the jail that are not what the machine has now, and files there that somebody else could change."""
    if not has_jails(config):
        return []
    queue = config.get("queue_directory")
    texts = [f"{copy} and {original} differ" for copy, original in differing_files(queue, zone=os.environ.get("TZ", ""))]
    texts += [f"not owned by root: {path}" for path in foreign_files(queue)]
    return [ConfigProblem("warning", "", 0, text) for text in texts]

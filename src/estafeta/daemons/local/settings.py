"""The parameters and tables of local(8), opened once when a worker starts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.config.export_environment import exported_environment
from estafeta.delivery.locking import LockPolicy, lock_policy, parse_methods
from estafeta.system.privilege import User, find_user
from estafeta.tables.maps import Maps
from estafeta.tables.table import OpenOptions


@dataclass(frozen=True, slots=True)
class Settings:
    """See postconf(5)."""

    myhostname: str
    myorigin: str
    alias_maps: Maps
    alias_paths: tuple[str, ...]  # of each table, to tell its owner; empty for tables without a file
    delimiter: str
    owner_request_special: bool
    expand_owner_alias: bool
    reset_owner_alias: bool
    propagate_alias: bool
    propagate_forward: bool
    allow_commands: frozenset[str]
    allow_files: frozenset[str]
    default_user: User | None
    forward_path: str
    forward_filter: frozenset[str]
    mailbox_transport_maps: Maps
    mailbox_transport: str
    fallback_transport_maps: Maps
    fallback_transport: str
    luser_relay: str
    mailbox_command_maps: Maps
    mailbox_command: str
    home_mailbox: str
    mail_spool_directory: str
    mailbox_limit: int
    strict_ownership: bool
    lock: LockPolicy
    command_time_limit_s: float
    command_filter: frozenset[str]
    command_shell: str
    command_directory: str
    directory_filter: frozenset[str]
    export: dict[str, str]
    prepend: frozenset[str]
    frozen_delivered_to: bool
    enable_original_recipient: bool
    duplicate_limit: int
    soft_bounce: bool


def read_settings(config: Config, options: OpenOptions) -> Settings:
    """Raises ConfigError for a bad value."""

    def maps(name: str) -> Maps:
        return Maps(config.words(name), options, name)

    def words(name: str) -> frozenset[str]:
        return frozenset(config.words(name))

    try:
        methods = parse_methods(config.words("mailbox_delivery_lock"))
    except ValueError as error:
        raise ConfigError(f"mailbox_delivery_lock: {error}", config.path) from None
    propagate = words("propagate_unmatched_extensions")
    return Settings(
        myhostname=config.get("myhostname"),
        myorigin=config.get("myorigin"),
        # aliases(5): results are commands and files, too, so they may not take up what a stranger wrote
        alias_maps=Maps(config.words("alias_maps"), replace(options, substitution=False), "alias_maps"),
        alias_paths=tuple(_table_file(spec) for spec in config.words("alias_maps")),
        delimiter=config.get("recipient_delimiter"),
        owner_request_special=config.bool("owner_request_special"),
        expand_owner_alias=config.bool("expand_owner_alias"),
        reset_owner_alias=config.bool("reset_owner_alias"),
        propagate_alias="alias" in propagate,
        propagate_forward="forward" in propagate,
        allow_commands=words("allow_mail_to_commands"),
        allow_files=words("allow_mail_to_files"),
        default_user=find_user(config.get("default_privs")),
        forward_path=config.get("forward_path"),
        forward_filter=frozenset(config.get("forward_expansion_filter")),
        mailbox_transport_maps=maps("mailbox_transport_maps"),
        mailbox_transport=config.get("mailbox_transport"),
        fallback_transport_maps=maps("fallback_transport_maps"),
        fallback_transport=config.get("fallback_transport"),
        luser_relay=config.get("luser_relay"),
        mailbox_command_maps=maps("mailbox_command_maps"),
        mailbox_command=config.get("mailbox_command"),
        home_mailbox=config.get("home_mailbox"),
        mail_spool_directory=config.get("mail_spool_directory"),
        mailbox_limit=config.size("mailbox_size_limit"),
        strict_ownership=config.bool("strict_mailbox_ownership"),
        lock=lock_policy(config, methods),
        command_time_limit_s=config.seconds("command_time_limit"),
        command_filter=frozenset(config.get("command_expansion_filter")),
        command_shell=config.get("local_command_shell"),
        command_directory=config.get("command_execution_directory"),
        directory_filter=frozenset(config.get("execution_directory_expansion_filter")),
        export=exported_environment(config),
        prepend=words("prepend_delivered_header"),
        frozen_delivered_to=config.bool("frozen_delivered_to"),
        enable_original_recipient=config.bool("enable_original_recipient"),
        duplicate_limit=config.int("duplicate_filter_limit"),
        soft_bounce=config.bool("soft_bounce"),
    )


def _table_file(spec: str) -> str:
    return spec.rpartition(":")[2] if ":/" in spec else ""

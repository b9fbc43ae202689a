"""The parameters and tables of virtual(8), opened once when a worker starts."""

from __future__ import annotations

from dataclasses import dataclass

from estafeta.config.config import Config
from estafeta.tables.maps import Maps
from estafeta.tables.table import OpenOptions


@dataclass(frozen=True, slots=True)
class Settings:
    """See postconf(5)."""

    base: str
    mailbox_maps: Maps
    uid_maps: Maps
    gid_maps: Maps
    minimum_uid: int
    mailbox_limit: int  # bytes; 0: none
    delimiter: str
    owner_request_special: bool
    enable_original_recipient: bool
    strict_ownership: bool
    soft_bounce: bool


def read_settings(config: Config, options: OpenOptions) -> Settings:
    """Raises ConfigError for a bad value."""

    def maps(name: str) -> Maps:
        return Maps(config.words(name), options, name)

    return Settings(
        base=config.get("virtual_mailbox_base"),
        mailbox_maps=maps("virtual_mailbox_maps"),
        uid_maps=maps("virtual_uid_maps"),
        gid_maps=maps("virtual_gid_maps"),
        # mail_owner = root (docs/differs.md): everything runs as root by the administrator's word, mailboxes too.
        minimum_uid=0 if config.get("mail_owner") == "root" else config.int("virtual_minimum_uid"),
        mailbox_limit=config.size("virtual_mailbox_limit"),
        delimiter=config.get("recipient_delimiter"),
        owner_request_special=config.bool("owner_request_special"),
        enable_original_recipient=config.bool("enable_original_recipient"),
        strict_ownership=config.bool("strict_mailbox_ownership"),
        soft_bounce=config.bool("soft_bounce"),
    )

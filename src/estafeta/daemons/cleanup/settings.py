"""The parameters and tables of cleanup(8), opened once when a worker starts."""

from __future__ import annotations

from dataclasses import dataclass

from estafeta.config.config import Config
from estafeta.config.rewrite_rules import rewrite_rules
from estafeta.mail.rewrite import RewriteRules
from estafeta.mail.text import to_bytes
from estafeta.tables.maps import Maps
from estafeta.tables.match_list import DomainList, StringList
from estafeta.tables.table import OpenOptions


@dataclass(frozen=True, slots=True)
class Settings:
    """See postconf(5)."""

    rules: RewriteRules
    myhostname: bytes
    own_addresses: frozenset[str]
    destinations: DomainList
    delimiter: str
    propagate: frozenset[str]
    canonical: Maps
    sender_canonical: Maps
    recipient_canonical: Maps
    canonical_classes: frozenset[str]
    sender_canonical_classes: frozenset[str]
    recipient_canonical_classes: frozenset[str]
    virtual_alias: Maps
    virtual_alias_expansion_limit: int
    virtual_alias_recursion_limit: int
    virtual_alias_address_length_limit: int
    always_bcc: bytes
    sender_bcc: Maps
    recipient_bcc: Maps
    masquerade_domains: tuple[bytes, ...]
    masquerade_exceptions: StringList
    masquerade_classes: frozenset[str]
    hopcount_limit: int
    message_size_limit: int
    header_size_limit: int
    detect_eight_bit: bool
    drop_headers: frozenset[bytes]
    always_add_missing: bool
    undisclosed: bytes
    duplicate_limit: int
    enable_original_recipient: bool
    delay_warning: bool
    long_queue_ids: bool
    standard_from: bool

    @property
    def maps_headers(self) -> bool:
        """True if some table or masquerading may change header addresses."""
        return bool(self.canonical or self.sender_canonical or self.recipient_canonical or self.masquerade_domains)


def read_settings(config: Config, options: OpenOptions, own_addresses: frozenset[str]) -> Settings:
    """Raises ConfigError for a bad value."""

    def maps(name: str) -> Maps:
        return Maps(config.words(name), options, name)

    def words(name: str) -> frozenset[str]:
        return frozenset(config.words(name))

    parents = words("parent_domain_matches_subdomains")
    return Settings(
        rules=rewrite_rules(config),
        myhostname=to_bytes(config.get("myhostname")),
        own_addresses=own_addresses,
        destinations=DomainList(
            config.get("mydestination"), options, "mydestination", match_parents="mydestination" in parents
        ),
        delimiter=config.get("recipient_delimiter"),
        propagate=words("propagate_unmatched_extensions"),
        canonical=maps("canonical_maps"),
        sender_canonical=maps("sender_canonical_maps"),
        recipient_canonical=maps("recipient_canonical_maps"),
        canonical_classes=words("canonical_classes"),
        sender_canonical_classes=words("sender_canonical_classes"),
        recipient_canonical_classes=words("recipient_canonical_classes"),
        virtual_alias=maps("virtual_alias_maps"),
        virtual_alias_expansion_limit=config.int("virtual_alias_expansion_limit"),
        virtual_alias_recursion_limit=config.int("virtual_alias_recursion_limit"),
        virtual_alias_address_length_limit=config.int("virtual_alias_address_length_limit"),
        always_bcc=to_bytes(config.get("always_bcc")),
        sender_bcc=maps("sender_bcc_maps"),
        recipient_bcc=maps("recipient_bcc_maps"),
        masquerade_domains=tuple(to_bytes(word.lower()) for word in config.words("masquerade_domains")),
        masquerade_exceptions=StringList(config.get("masquerade_exceptions"), options, "masquerade_exceptions"),
        masquerade_classes=words("masquerade_classes"),
        hopcount_limit=config.int("hopcount_limit"),
        message_size_limit=config.size("message_size_limit"),
        header_size_limit=config.size("header_size_limit"),
        detect_eight_bit=config.bool("detect_8bit_encoding_header"),
        drop_headers=frozenset(word.lower().encode() for word in config.words("message_drop_headers")),
        always_add_missing=config.bool("always_add_missing_headers"),
        undisclosed=to_bytes(config.get("undisclosed_recipients_header")),
        duplicate_limit=config.int("duplicate_filter_limit"),
        enable_original_recipient=config.bool("enable_original_recipient"),
        delay_warning=config.seconds("delay_warning_time") > 0,
        long_queue_ids=config.bool("enable_long_queue_ids"),
        standard_from=config.get("header_from_format").lower() == "standard",
    )

"""The tables and limits of content checks: header_checks and its kin for cleanup(8), smtp_header_checks and its kin for smtp(8).

Source: header_checks(5), postconf(5) strict_7bit_headers, strict_8bitmime, mime_nesting_limit. What is done with them is in
content_checks.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from estafeta.config.config import Config
from estafeta.tables.maps import Maps
from estafeta.tables.table import OpenOptions


@dataclass(frozen=True, slots=True)
class ContentChecks:
    """The tables of one worker."""

    header: Maps
    mime: Maps
    nested: Maps
    body: Maps
    body_limit: int
    line_limit: int
    nesting_limit: int
    boundary_limit: int
    mime_input: bool
    strict_headers: bool
    strict_body: bool
    strict_encoding: bool

    def __bool__(self) -> bool:
        strict = self.mime_input and (self.strict_headers or self.strict_body or self.strict_encoding)
        return bool(self.header or self.mime or self.nested or self.body) or strict


def read_delivery_checks(
    config: Config, specs: Sequence[tuple[str, Sequence[str]]], options: OpenOptions
) -> ContentChecks:
    """Open the four tables (parameter, value: header, mime, nested, body) of a client: no limits, nothing strict."""
    header, mime, nested, body = (Maps(value, options, name) for name, value in specs)
    return ContentChecks(
        header, mime, nested, body, body_limit=0, line_limit=config.int("line_length_limit"),
        nesting_limit=config.int("mime_nesting_limit"), boundary_limit=config.int("mime_boundary_length_limit"),
        mime_input=True, strict_headers=False, strict_body=False, strict_encoding=False,
    )  # fmt: skip


def read_checks(config: Config, options: OpenOptions) -> ContentChecks:
    """Open the tables; raises ConfigError for a bad value."""

    def maps(name: str) -> Maps:
        return Maps(config.words(name), options, name)

    return ContentChecks(
        header=maps("header_checks"),
        mime=maps("mime_header_checks"),
        nested=maps("nested_header_checks"),
        body=maps("body_checks"),
        body_limit=config.size("body_checks_size_limit"),
        line_limit=config.int("line_length_limit"),
        nesting_limit=config.int("mime_nesting_limit"),
        boundary_limit=config.int("mime_boundary_length_limit"),
        mime_input=not config.bool("disable_mime_input_processing"),
        strict_headers=config.bool("strict_7bit_headers") or config.bool("strict_8bitmime"),
        strict_body=config.bool("strict_8bitmime_body") or config.bool("strict_8bitmime"),
        strict_encoding=config.bool("strict_mime_encoding_domain"),
    )

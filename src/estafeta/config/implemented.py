"""Which parameters the programs really read.

A parameter that is set but not named here is reported by `postfix check` and at start-up: nothing is ignored in
silence. tests/unit/config/test_implemented.py compares this set with the parameter names that appear as string
literals in the source; add a name here in the change that makes a program read it.
"""

from __future__ import annotations

from estafeta.config.registry import transport_parameter

_NAMES = """
config_directory mail_version myhostname mydomain mynetworks mynetworks_style inet_interfaces inet_protocols
compatibility_level process_id process_name mailbox_size_limit message_size_limit master_service_disable
virtual_mailbox_limit
"""

IMPLEMENTED: frozenset[str] = frozenset(_NAMES.split())

IMPLEMENTED_SUFFIXES: frozenset[str] = frozenset()
"""Suffixes of a transport's parameters (`_destination_concurrency_limit` ...) that the programs read."""


def is_implemented(name: str) -> bool:
    """Whether setting `name` has an effect here. Names of the administrator's own are for the caller to tell apart."""
    if name in IMPLEMENTED:
        return True
    parameter = transport_parameter(name)
    return parameter is not None and any(name.endswith(suffix) for suffix in IMPLEMENTED_SUFFIXES)

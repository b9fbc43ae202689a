"""Which parameters the programs really read.

A parameter that is set but not named in params/implemented.txt is reported by `postfix check` and at start-up: nothing is ignored
in silence. tests/unit/config/test_implemented.py compares this set with the parameter names that appear as string
literals in the source; add a name there in the change that makes a program read it.
"""

from __future__ import annotations

from pathlib import Path

from estafeta.config.registry import transport_parameter

_FILE = Path(__file__).with_name("params") / "implemented.txt"  # one name a line, sorted
_NAMES = _FILE.read_text(encoding="ascii")

IMPLEMENTED: frozenset[str] = frozenset(_NAMES.split())

IMPLEMENTED_SUFFIXES: frozenset[str] = frozenset(
    (
        "_destination_concurrency_failed_cohort_limit",
        "_destination_concurrency_limit",
        "_destination_concurrency_negative_feedback",
        "_destination_concurrency_positive_feedback",
        "_destination_rate_delay",
        "_destination_recipient_limit",
        "_initial_destination_concurrency",
    )
)
"""Suffixes of a transport's parameters (`_destination_concurrency_limit` ...) that the programs read."""


def is_implemented(name: str) -> bool:
    """Whether setting `name` has an effect here. Names of the administrator's own are for the caller to tell apart."""
    if name in IMPLEMENTED:
        return True
    parameter = transport_parameter(name)
    return parameter is not None and any(name.endswith(suffix) for suffix in IMPLEMENTED_SUFFIXES)

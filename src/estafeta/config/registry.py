"""The parameter registry: every main.cf parameter with its type, limits and default.

Source: postconf(5) and `postconf -d` of Postfix 3.7 as Debian builds it (names, defaults and units are facts); the rows
lie beside this module in params/*.tsv, one file an area. Columns: name, type, minimum, maximum, default as written.

Types: `bool`; `int`; `size` (bytes); `time:U` (U is the unit that a bare number has: s m h d w); `str` (may be empty);
`text` (must not be empty); `raw` (not expanded: its `$names` mean something to the program that uses it);
`enum:a,b` (one of these words). A default of `@` is computed (see host.py).
`later` holds parameters newer than 3.7 and `old` names that work only through another parameter's default (or no
longer): both are known, but `postconf -d` does not list them, as in 3.7.

Parameters of a transport (`<transport>_destination_recipient_limit` and so on) are not rows: they exist for each
delivery service of master.cf, see `TRANSPORT_SUFFIXES`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple

COMPUTED = "@"


class Parameter(NamedTuple):
    """One parameter. `unit` is the default time unit of a `time`; limits are None where there is none."""

    name: str
    kind: str
    unit: str
    choices: tuple[str, ...]
    minimum: int | None
    maximum: int | None
    default: str
    area: str

    @property
    def builtin(self) -> bool:
        """Whether Postfix 3.7 has this parameter under this name (`postconf -d` lists it)."""
        return self.area not in ("old", "later")


TRANSPORT_SUFFIXES: dict[str, tuple[str, str]] = {
    "_delivery_slot_cost": ("int", "$default_delivery_slot_cost"),
    "_delivery_slot_discount": ("int", "$default_delivery_slot_discount"),
    "_delivery_slot_loan": ("int", "$default_delivery_slot_loan"),
    "_destination_concurrency_failed_cohort_limit": (
        "int",
        "$default_destination_concurrency_failed_cohort_limit",
    ),
    "_destination_concurrency_limit": ("int", "$default_destination_concurrency_limit"),
    "_destination_concurrency_negative_feedback": (
        "str",
        "$default_destination_concurrency_negative_feedback",
    ),
    "_destination_concurrency_positive_feedback": (
        "str",
        "$default_destination_concurrency_positive_feedback",
    ),
    "_destination_rate_delay": ("time:s", "$default_destination_rate_delay"),
    "_destination_recipient_limit": ("int", "$default_destination_recipient_limit"),
    "_extra_recipient_limit": ("int", "$default_extra_recipient_limit"),
    "_initial_destination_concurrency": ("int", "$initial_destination_concurrency"),
    "_minimum_delivery_slots": ("int", "$default_minimum_delivery_slots"),
    "_recipient_limit": ("int", "$default_recipient_limit"),
    "_recipient_refill_delay": ("time:s", "$default_recipient_refill_delay"),
    "_recipient_refill_limit": ("int", "$default_recipient_refill_limit"),
    "_transport_rate_delay": ("time:s", "$default_transport_rate_delay"),
}
"""What each delivery service may have of its own: suffix -> (type, default)."""

TIME_LIMIT_SUFFIX = "_time_limit"
"""What each pipe(8) and spawn(8) service may have besides; its default is `$command_time_limit`."""

TRANSPORT_PROGRAMS = frozenset(("error", "lmtp", "local", "pipe", "smtp", "virtual"))
TIME_LIMIT_PROGRAMS = frozenset(("pipe", "spawn"))

_AREAS = (
    "addresses",
    "delivery",
    "filtering",
    "later",
    "lmtp",
    "old",
    "postscreen",
    "queue",
    "reject",
    "smtp",
    "smtpd",
    "system",
    "tls",
)


def _parameter(name: str, kind: str, minimum: str, maximum: str, default: str, area: str) -> Parameter:
    kind, _, detail = kind.partition(":")
    return Parameter(
        name,
        kind,
        detail if kind == "time" else "",
        tuple(detail.split(",")) if kind == "enum" else (),
        int(minimum) if minimum else None,
        int(maximum) if maximum else None,
        default,
        area,
    )


@lru_cache(maxsize=1)
def parameters() -> dict[str, Parameter]:
    """All parameters by name. Read once; do not change the result."""
    directory = os.path.join(os.path.dirname(__file__), "params")
    table: dict[str, Parameter] = {}
    for area in _AREAS:
        with open(f"{directory}/{area}.tsv", encoding="utf-8") as file:
            for line in file:
                if not line.startswith("#"):
                    name, kind, minimum, maximum, default = line.rstrip("\n").split("\t")
                    table[name] = _parameter(name, kind, minimum, maximum, default, area)
    return table


def find_parameter(name: str) -> Parameter | None:
    """The parameter called `name`; a transport's parameter is recognised by its suffix. None if there is none."""
    found = parameters().get(name)
    return found if found is not None else transport_parameter(name)


@lru_cache(maxsize=1024)
def transport_parameter(name: str) -> Parameter | None:
    """The parameter that `name` is if it ends in one of a transport's suffixes; None otherwise."""
    best = max((suffix for suffix in TRANSPORT_SUFFIXES if name.endswith(suffix)), key=len, default="")
    if best and len(name) > len(best):
        kind, default = TRANSPORT_SUFFIXES[best]
        return _parameter(name, kind, "0" if kind != "str" else "", "", default, "transport")
    if name.endswith(TIME_LIMIT_SUFFIX) and len(name) > len(TIME_LIMIT_SUFFIX):
        return _parameter(name, "time:s", "1", "", "$command_time_limit", "transport")
    return None


def service_parameters(services: dict[str, str]) -> dict[str, Parameter]:
    """The parameters that the services of a master.cf bring along; `services` maps service name to program."""
    found: dict[str, Parameter] = {}
    rows = parameters()
    for service, program in services.items():
        suffixes = list(TRANSPORT_SUFFIXES) if program in TRANSPORT_PROGRAMS else []
        if program in TIME_LIMIT_PROGRAMS:
            suffixes.append(TIME_LIMIT_SUFFIX)
        for suffix in suffixes:
            name = service + suffix
            if name not in rows and (parameter := transport_parameter(name)) is not None:
                found[name] = parameter
    return found

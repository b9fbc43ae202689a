"""The command line of postsuper(1)."""

from __future__ import annotations

import getopt
import sys
from dataclasses import dataclass, field

_USAGE = (
    "usage: postsuper [-c config_dir] [-d queue_id (delete)] [-e queue_id (expire)] [-f queue_id (expire and/or un-hold)] "
    "[-h queue_id (hold)] [-H queue_id (un-hold)] [-p (purge temporary files)] [-r queue_id (requeue)] "
    "[-s (structure fix)] [-S (redundant structure fix)][-v (verbose)] [queue...]"
)
_VERBS = {"d": "delete", "h": "hold", "H": "release", "r": "requeue"}
_DEFAULT = {
    "delete": ("hold", "incoming", "active", "deferred"),
    "hold": ("incoming", "active", "deferred"),
    "release": ("hold",),
    "requeue": ("hold", "incoming", "active", "deferred"),
}
QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")
_LOGS = ("bounce", "defer", "trace", "flush", "corrupt")


class UsageError(Exception):
    """The command line is wrong; ``notes`` are lines to print before."""

    def __init__(self, text: str, *notes: str) -> None:
        super().__init__(text)
        self.notes = notes


@dataclass(slots=True)
class Action:
    """One of -d, -h, -H, -r with all its ids."""

    verb: str
    queues: tuple[str, ...]
    ids: list[str]


@dataclass(slots=True)
class Options:
    """What is asked for."""

    directory: str | None = None
    purge: bool = False
    structure: bool = False
    queues: tuple[str, ...] = ()
    actions: list[Action] = field(default_factory=list)


def read_options(arguments: list[str]) -> Options:
    """Read the command line (and ids from standard input for ``-``); raises UsageError."""
    try:
        pairs, rest = getopt.getopt(arguments, "c:d:e:f:h:H:pr:sSv")
    except getopt.GetoptError as error:
        raise UsageError(_USAGE, str(error)) from None
    options = Options()
    for name in rest:
        if name not in QUEUES and name not in _LOGS:
            raise UsageError(f"invalid directory name: {name}")
    options.queues = tuple(rest)
    found: dict[str, list[str]] = {}
    for option, value in pairs:
        letter = option[1]
        if letter == "c":
            options.directory = value
        elif letter == "p":
            options.purge = True
        elif letter in "sS":
            options.structure = True
        elif letter in _VERBS:
            ids = found.setdefault(_VERBS[letter], [])
            ids += [line.strip() for line in sys.stdin if line.strip()] if value == "-" else [value]
        elif letter in "ef":
            raise UsageError(f"-{letter} (forced expiration) is not implemented")
    if not found and not options.purge and not options.structure:
        options.purge = options.structure = True
    for verb in ("delete", "hold", "release", "requeue"):
        if verb in found:
            options.actions.append(Action(verb, options.queues or _DEFAULT[verb], found[verb]))
    return options

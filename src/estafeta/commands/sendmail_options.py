"""The command line of sendmail(1): which options there are, which are ignored, what the rest mean.

Source: sendmail(1) and what Postfix 3.7's sendmail answers to each letter. Options end at the first word that is none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from estafeta.mail.address import addresses_in

_WITH_VALUE = frozenset("ABCFLNORVXbefhopr")
_FLAGS = frozenset("GIUcimntvx")
_MODES = {
    "m": "deliver", "s": "smtp", "p": "list", "i": "aliases", "d": "daemon", "l": "daemon", "h": "nothing", "H": "nothing",
}  # fmt: skip
_NOTIFY = {"never": 1, "success": 2, "failure": 4, "delay": 8}


class UsageError(Exception):
    """The command line is wrong; ``notes`` are lines to print before."""

    def __init__(self, text: str, *notes: str) -> None:
        super().__init__(text)
        self.notes = notes


@dataclass(slots=True)
class Options:
    """What is asked for. ``mode``: deliver, smtp, list, aliases, daemon, flush, flush_id, flush_site or nothing."""

    mode: str = "deliver"
    argument: str = ""  # queue id, site, or alias file
    config_directory: str = ""
    sender: bytes | None = None  # None: the user; empty: <>
    full_name: str | None = None
    recipients: list[bytes] = field(default_factory=list)
    from_headers: bool = False
    ignore_dots: bool = False
    gateway: bool = False
    verify: bool = False
    verbose: int = 0
    body: str = ""
    notify: int = 0
    ret: str = ""
    envid: bytes = b""

    @property
    def trace(self) -> str:
        """What the user wants a report of."""
        return "verify" if self.verify else "report" if self.verbose == 1 else ""


def _words(arguments: list[str]) -> Iterator[tuple[str, str]]:
    """(letter, value) of each option; then one with an empty letter for each other word."""
    position = 0
    while position < len(arguments):
        word = arguments[position]
        if word == "--":
            position += 1
            break
        if not word.startswith("-") or word == "-":
            break
        position += 1
        at = 1
        while at < len(word):
            letter = word[at]
            at += 1
            if letter == "q":  # its value, if any, is in the same word
                yield letter, word[at:]
                break
            if letter in _WITH_VALUE:
                value = word[at:]
                if not value:
                    if position >= len(arguments):
                        raise UsageError("usage: sendmail [options]", f"option requires an argument -- '{letter}'")
                    value = arguments[position]
                    position += 1
                yield letter, value
                break
            if letter not in _FLAGS:
                raise UsageError("usage: sendmail [options]", f"invalid option -- '{letter}'")
            yield letter, ""
    for word in arguments[position:]:
        yield "", word


def read_options(arguments: list[str], warn: Callable[[str], None]) -> Options:
    """Read the command line; raises UsageError."""
    options = Options()
    words: list[str] = []
    for letter, value in _words(arguments):
        if letter == "":
            words.append(value)
        elif letter == "q":
            _queue_run(options, value)
        elif letter == "b":
            _mode(options, value)
        else:
            _simple(options, letter, value, warn)
    if options.from_headers and options.verify:
        raise UsageError("-t option cannot be used with -bv")
    if options.mode != "deliver":
        if options.from_headers:
            raise UsageError("-t can be used only in delivery mode")
        if words and options.mode in ("list", "smtp"):
            what = "display queue mode" if options.mode == "list" else "stand-alone mode"
            raise UsageError(f"{what} requires no recipient")
        return options
    for word in words:
        found = addresses_in(os.fsencode(word))
        options.recipients += found or [b""]
    return options


def _simple(options: Options, letter: str, value: str, warn: Callable[[str], None]) -> None:
    if letter == "C":
        options.config_directory = value if os.path.isdir(value) or not value.endswith("main.cf") else os.path.dirname(value)
    elif letter in "fr":
        options.sender = read_sender(value, warn)
    elif letter == "F":
        options.full_name = value
    elif letter == "G":
        options.gateway = True
    elif letter == "I":
        options.mode = "aliases"
    elif letter == "t":
        options.from_headers = True
    elif letter == "i":
        options.ignore_dots = True
    elif letter == "v":
        options.verbose += 1
    elif letter == "n":
        raise UsageError("-n option not supported")
    elif letter == "o":
        _old_style(options, value)
    elif letter == "B":
        if value.upper() not in ("7BIT", "8BITMIME"):
            raise UsageError("-B option needs 8BITMIME or 7BIT")
        options.body = value.upper()
    elif letter == "N":
        options.notify = read_notify(value, warn)
    elif letter == "R":
        if value.lower() in ("full", "hdrs"):
            options.ret = value.upper()
        else:
            warn("bad -R option value -- ignored")
    elif letter == "V":
        options.envid = xtext(os.fsencode(value))
        if not value or not value.isprintable() or not value.isascii():
            options.envid = b""
            warn("bad syntax in -V option value -- ignored")
    elif letter == "X":
        if not value.startswith("V"):
            raise UsageError(f"unsupported: -X{value[:1]}")
        warn("-XV (VERP) is not implemented -- ignored")


def _mode(options: Options, value: str) -> None:
    letter = value[:1]
    if letter == "v":
        options.verify = True
        options.mode = "deliver"
    elif letter in _MODES:
        options.mode = _MODES[letter]
    else:
        raise UsageError(f"unsupported: -b{letter}")


def _old_style(options: Options, value: str) -> None:
    if value[:1] == "i":
        options.ignore_dots = True
    elif value[:1] == "A":
        if not value[1:]:
            raise UsageError("-oA requires pathname")
        options.argument = value[1:]


def _queue_run(options: Options, value: str) -> None:
    letter, rest = value[:1], value[1:]
    if not value:
        options.mode = "flush"
    elif letter.isdigit():
        options.mode = "nothing"  # the interval is queue_run_delay's business
    elif letter == "I":
        if not rest:
            raise UsageError("specify: -qIqueueid")
        options.mode, options.argument = "flush_id", rest
    elif letter == "R":
        if not rest:
            raise UsageError("specify: -qRsitename")
        options.mode, options.argument = "flush_site", rest
    else:
        raise UsageError(f"-q{letter} is not implemented")


def read_sender(value: str, warn: Callable[[str], None]) -> bytes:
    """The address of -f or -r; empty for <>."""
    found = addresses_in(os.fsencode(value))
    if not found:
        return b""
    if len(found) > 1 or b" " in found[0].rpartition(b"@")[2] or (b" " in found[0] and '"' not in value):
        warn(f"-f option specified malformed sender: {value}")
        return found[0].split(b" ")[0]
    return found[0]


def read_notify(value: str, warn: Callable[[str], None]) -> int:
    """DSN NOTIFY bits of -N; 0, with a warning, for what makes no sense."""
    bits = 0
    for word in value.lower().replace(",", " ").split():
        if word not in _NOTIFY:
            warn(f'unknown DSN NOTIFY command value "{word}" in "{value}"')
            bits = 0
            break
        bits |= _NOTIFY[word]
    if bits == 0 or (bits & 1 and bits != 1):
        warn("bad -N option value -- ignored")
        return 0
    return bits


def xtext(data: bytes) -> bytes:
    """RFC 3461 section 4: printable ASCII without ``+`` and ``=`` as it is, the rest as +XX."""
    return b"".join(bytes((c,)) if 33 <= c <= 126 and c not in b"+=" else b"+%02X" % c for c in data)

"""The command line of postconf: options, and which of them exclude one another.

Source: postconf(1), SYNOPSIS.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from estafeta.config.main_cf import default_directory

_USAGE = (
    "usage: postconf [-a (server SASL types)] [-A (client SASL types)] [-b (bounce templates)] [-c config_dir] "
    "[-c param_class] [-d (parameter defaults)] [-e (edit configuration)] [-f (fold lines)] [-F (master.cf fields)] "
    "[-h (no names)] [-H (no values)] [-l (lock types)] [-m (map types)] [-M (master.cf)] "
    "[-n (non-default parameters)] [-o name=value (override parameter value)] [-p (main.cf, default)] "
    "[-P (master.cf parameters)] [-t (bounce templates)] "
    "[-T compile-version|run-version|public-key-algorithms] [-v (verbose)] [-x (expand parameter values)] "
    "[-X (exclude)] [-# (comment-out)] [name...]"
)
_FLAGS = frozenset("aAbdefFhHlmMnpPtvxX#")
_WITH_VALUE = frozenset("cCoT")
_CLASSES = {"builtin": {"builtin"}, "service": {"service"}, "user": {"user"}, "all": {"builtin", "service", "user"}}

_ORDER = "aAbCdefFhHlmMnopPtTxX#"
_MODES = frozenset("aAblmMFPtT")
_PAIRS = "dn do hH de dX d# eX e# X# ef eh eH en eo ex fX f# hX h# HX H# nX n# oX o# xX x#"
_EXCLUSIVE = frozenset(_PAIRS.split())

# Which options (besides c and v, which go with all) go with what is shown; measured on Postfix 3.7.
_ALLOWED = {
    "main": frozenset("pdefhHnoxCX#"),
    "M": frozenset("CefoxX#"),
    "F": frozenset("CefhHox"),
    "P": frozenset("CefhHoxX"),
}


class UsageError(Exception):
    """The command line makes no sense; one line."""


@dataclass(slots=True)
class Options:
    """The parsed command line. `mode` is "main", "M", "F", "P", or one of the lists a A b l m t T."""

    flags: set[str] = field(default_factory=set)
    mode: str = "main"
    directory: str = ""
    directory_given: bool = False
    classes: set[str] = field(default_factory=lambda: set(_CLASSES["all"]))
    overrides: list[tuple[str, str]] = field(default_factory=list)
    tls_mode: str = ""
    words: list[str] = field(default_factory=list)

    def has(self, flag: str) -> bool:
        """Whether the one-letter option was given."""
        return flag in self.flags

    @property
    def editing(self) -> bool:
        """Whether the configuration is to be changed."""
        return bool(self.flags & {"e", "X", "#"})


def parse_options(argv: list[str]) -> Options:
    """Read the command line. Raises UsageError."""
    options = Options(directory=default_directory())
    options.directory_given = bool(os.environ.get("MAIL_CONFIG"))
    words = iter(argv)
    # Options end at the first word that is none, as in Postfix: what follows are names, whatever they look like.
    for word in words:
        if word == "--":
            break
        if len(word) < 2 or word[0] != "-":
            options.words.append(word)
            break
        _cluster(word, words, options)
    options.words += words
    _settle(options)
    return options


def _cluster(word: str, words: Iterator[str], options: Options) -> None:
    for index, flag in enumerate(word[1:], 1):
        if flag in _FLAGS:
            options.flags.add(flag)
        elif flag in _WITH_VALUE:
            value = word[index + 1 :] or next(words, None)
            if value is None:
                print(f"postconf: option requires an argument -- '{flag}'", file=sys.stderr)
                raise UsageError(_USAGE)
            _valued(flag, value, options)
            return
        else:
            print(f"postconf: invalid option -- '{flag}'", file=sys.stderr)
            raise UsageError(_USAGE)


def _valued(flag: str, value: str, options: Options) -> None:
    options.flags.add(flag)
    if flag == "c":
        options.directory, options.directory_given = value, True
    elif flag == "C":
        options.classes = set()
        for name in value.replace(",", " ").split():
            if name not in _CLASSES:
                raise UsageError(f'unknown -C option value "{name}" in "{value}"')
            options.classes |= _CLASSES[name]
    elif flag == "o":
        name, equals, text = value.partition("=")
        if not equals:
            raise UsageError(f"invalid parameter override: {value}: missing '=' after attribute name")
        if not name.strip():
            raise UsageError(f"invalid parameter override: {value}: missing attribute name")
        options.overrides.append((name.strip(), text.strip()))
    else:
        options.tls_mode = value


def _settle(options: Options) -> None:
    modes = [flag for flag in _ORDER if flag in _MODES and options.has(flag)]
    if len(modes) > 1:
        raise UsageError(f"specify one of -{modes[0]} -{modes[1]}")
    if modes:
        options.mode = modes[0]
    allowed = _ALLOWED.get(options.mode, frozenset())
    for flag in _ORDER:
        if options.has(flag) and flag not in allowed and flag != options.mode:
            raise UsageError(f"with option -{options.mode}, do not specify -{flag}")
    if options.mode in _ALLOWED and any("=" in word for word in options.words):
        options.flags.add("e")
    given = [flag for flag in _ORDER if options.has(flag)]
    for index, first in enumerate(given):
        for second in given[index + 1 :]:
            if first + second in _EXCLUSIVE:
                raise UsageError(f"specify one of -{first} -{second}")
    if options.editing and not options.words:
        raise UsageError("-e requires name=value argument" if options.has("e") else "missing service argument")

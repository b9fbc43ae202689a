"""The command attributes of a pipe(8) service in master.cf: ``flags=DRhu user=vmail argv=/usr/bin/maildrop -d ${recipient}``.

Source: pipe(8) COMMAND ATTRIBUTE SYNTAX. Pure: users, groups and directories are looked for by who runs the command.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FLAGS = frozenset("BDFORXhqu.>")
MACROS = frozenset(
    ("client_address", "client_helo", "client_hostname", "client_port", "client_protocol", "domain", "extension", "mailbox",
     "nexthop", "original_recipient", "queue_id", "recipient", "sasl_method", "sasl_sender", "sasl_username", "sender", "size",
     "user", "envid")
)  # fmt: skip
PER_RECIPIENT = frozenset(("domain", "extension", "mailbox", "original_recipient", "recipient", "user"))
"""Macros that make one argument of their own for each recipient."""

_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|(.?))", re.DOTALL)
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_MACRO = re.compile(r"\$(?:(\$)|\{(\w+)\}|\((\w+)\)|(\w+)|(.|$))", re.DOTALL)

Template = tuple[str | tuple[str], ...]
"""An argument: literal text, and names of macros as one-element tuples."""


class BadAttributes(ValueError):
    """The attributes make no command; the text says why."""


@dataclass(frozen=True, slots=True)
class PipeAttributes:
    """``size_limit`` in octets (0: none); ``eol`` ends each line; ``group`` is empty for the user's own."""

    argv: tuple[Template, ...]
    flags: frozenset[str]
    user: str
    group: str
    eol: bytes
    null_sender: str
    size_limit: int
    directory: str
    chroot: str


def unescape(text: str) -> bytes:
    r"""The C-style escapes of ``eol``; raises BadAttributes. ``\r\n`` -> CR LF."""

    def one(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 8) & 255)
        if match[2] not in _LETTERS:
            raise BadAttributes(f"eol={text}: unknown escape \\{match[2]}")
        return _LETTERS[match[2]]

    return _ESCAPE.sub(one, text).encode("latin-1", "replace")


def template(argument: str) -> Template:
    """Parse the macros of one argument; raises BadAttributes."""
    parts: list[str | tuple[str]] = []
    position = 0
    for match in _MACRO.finditer(argument):
        if match.start() > position:
            parts.append(argument[position : match.start()])
        position = match.end()
        if match[1]:
            parts.append("$")
            continue
        name = match[2] or match[3] or match[4]
        if name is None:
            raise BadAttributes(f"argv: truncated macro in {argument!r} (write $$ for a dollar sign)")
        if name not in MACROS:
            raise BadAttributes(f"argv: unknown macro name {name!r} in {argument!r}")
        parts.append((name,))
    if position < len(argument):
        parts.append(argument[position:])
    return tuple(parts)


def parse_pipe_attributes(args: tuple[str, ...]) -> PipeAttributes:
    """The attributes as master.cf has them; raises BadAttributes."""
    values: dict[str, str] = {}
    argv: tuple[str, ...] = ()
    for number, word in enumerate(args):
        name, equals, value = word.partition("=")
        if name == "argv" and equals:
            argv = ((value,) if value else ()) + args[number + 1 :]
            break
        if not equals or name not in ("chroot", "directory", "eol", "flags", "null_sender", "size", "user"):
            raise BadAttributes(f"unknown attribute name: {word}")
        values[name] = value
    if not argv:
        raise BadAttributes("missing argv= command attribute")
    user, _, group = values.get("user", "").partition(":")
    if not user:
        raise BadAttributes("missing user= command attribute")
    flags = frozenset(values.get("flags", ""))
    unknown = sorted(flags - FLAGS)
    if unknown:
        raise BadAttributes(f"unknown flag: {unknown[0]}")
    size = values.get("size", "0")
    if not (size.isascii() and size.isdigit()):
        raise BadAttributes(f"bad size= command attribute: {size}")
    return PipeAttributes(
        argv=tuple(template(argument) for argument in argv),
        flags=flags,
        user=user,
        group=group,
        eol=unescape(values["eol"]) if values.get("eol") else b"\n",
        null_sender=values.get("null_sender", "MAILER-DAEMON"),
        size_limit=int(size),
        directory=values.get("directory", ""),
        chroot=values.get("chroot", ""),
    )

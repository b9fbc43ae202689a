"""The attributes of XCLIENT and XFORWARD: ``NAME=value`` words with xtext values.

Source: XCLIENT_README, XFORWARD_README; the replies as observed. Pure. Invariant: a command is taken as a whole or refused as a
whole.
"""

from __future__ import annotations

import re
import socket

from estafeta.daemons.smtpd.access import is_hostname

XCLIENT_NAMES = ("NAME", "ADDR", "PROTO", "HELO", "REVERSE_NAME", "PORT", "LOGIN", "DESTADDR", "DESTPORT")
XFORWARD_NAMES = ("NAME", "ADDR", "PROTO", "HELO", "SOURCE", "PORT", "IDENT")

UNAVAILABLE = "[UNAVAILABLE]"
TEMPUNAVAIL = "[TEMPUNAVAIL]"
_UNKNOWN = frozenset((UNAVAILABLE, TEMPUNAVAIL))
_LONGEST_VALUE = 255
_LONGEST_PROTOCOL = 64
_CODED = re.compile(r"\+([0-9A-Fa-f]{2})")
_XTEXT = re.compile(r"(?:[^+]|\+[0-9A-Fa-f]{2})*")
_UNFIT = re.compile(r"[^\x21-\x7e]|[<>()\\\";@]")  # control characters, and what means something in a header


class BadAttribute(Exception):
    """Carries the reply, without code."""


def parse_attributes(command: str, argument: str, *, ipv4: bool = True, ipv6: bool = True) -> dict[str, str]:
    """The attributes of a command (``XCLIENT`` or ``XFORWARD``); what is not known is UNAVAILABLE or TEMPUNAVAIL.

    Addresses are without ``IPV6:``. Raises BadAttribute.
    """
    known = XCLIENT_NAMES if command == "XCLIENT" else XFORWARD_NAMES
    found: dict[str, str] = {}
    for word in argument.split():
        written, equals, value = word.partition("=")
        name = written.upper()
        if not equals or not value:
            raise BadAttribute("Error: attribute=value expected")
        if len(value) > _LONGEST_VALUE:
            raise BadAttribute("Error: attribute value too long")
        if _XTEXT.fullmatch(value):  # before Postfix 2.3 values were not encoded
            value = _CODED.sub(lambda match: chr(int(match[1], 16)), value)
        value = _UNFIT.sub("?", value)
        if name not in known:
            raise BadAttribute(f"Bad {command} attribute name: {written}")
        found[name] = _checked(command, name, value, ipv4=ipv4, ipv6=ipv6)
    return found


def _checked(command: str, name: str, value: str, *, ipv4: bool, ipv6: bool) -> str:
    """The value in its canonical form."""
    upper = value.upper()
    if upper == UNAVAILABLE and name not in ("PROTO",):
        return UNAVAILABLE
    if upper == TEMPUNAVAIL and command == "XCLIENT" and name in ("NAME", "REVERSE_NAME"):
        return TEMPUNAVAIL
    good = True
    if name in ("NAME", "REVERSE_NAME"):
        good = is_hostname(value)
    elif name in ("ADDR", "DESTADDR"):
        address = _address(value, ipv4=ipv4, ipv6=ipv6)
        good = address is not None
        value = address or value
    elif name in ("PORT", "DESTPORT"):
        good = value.isascii() and value.isdigit() and len(value) <= 5
    elif name == "PROTO" and command == "XCLIENT":
        good = upper in ("SMTP", "ESMTP")
        value = upper if good else value
    elif name == "PROTO":
        good = upper == UNAVAILABLE or len(value) <= _LONGEST_PROTOCOL
        value = UNAVAILABLE if upper == UNAVAILABLE else value
    elif name == "SOURCE":
        good = upper in ("LOCAL", "REMOTE")
        value = upper if good else value
    if not good:
        raise BadAttribute(f"Bad {name} syntax: {value}")
    return value


def _address(value: str, *, ipv4: bool, ipv6: bool) -> str | None:
    family = socket.AF_INET
    if value[:5].upper() == "IPV6:":
        family = socket.AF_INET6
        value = value[5:]
    if not (ipv6 if family == socket.AF_INET6 else ipv4):
        return None
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, value))
    except (OSError, ValueError):
        return None


def is_known(value: str) -> bool:
    """Whether the attribute was given and says something."""
    return bool(value) and value not in _UNKNOWN

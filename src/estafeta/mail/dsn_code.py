"""Enhanced status codes: recognise them, split them off a text, give a reply code its default.

Source: RFC 3463, RFC 2034; man 5 postconf (smtp_reply_filter) for the rule that the reply code's digit wins over a
status code of another class. Invariant: a status is text like ``5.1.1``: class 2, 4 or 5, two numbers of one to three
digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_STATUS = re.compile(r"([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![^ \t\r\n])")
_REPLY = re.compile(r"([2-5][0-9][0-9])(?:[ -]|\Z)")

PROTOCOL_ERROR = "5.5.0"


class DsnCodeError(ValueError):
    """The text is no enhanced status code."""


@dataclass(frozen=True, slots=True)
class DsnCode:
    """A status in its parts; ``klass`` is 2 (success), 4 (temporary) or 5 (permanent)."""

    klass: int
    subject: int
    detail: int

    def __str__(self) -> str:
        return f"{self.klass}.{self.subject}.{self.detail}"

    def with_class(self, klass: int) -> DsnCode:
        """Return the same subject and detail in another class."""
        return DsnCode(klass, self.subject, self.detail)


@dataclass(frozen=True, slots=True)
class CodedText:
    """A reply taken apart: reply code, enhanced status (given or by default), text behind both."""

    code: int
    status: str
    text: str


def parse_dsn_code(text: str) -> DsnCode:
    """Parse a status that is the whole ``text``; DsnCodeError if it is none."""
    match = _STATUS.match(text)
    if match is None or match.end() != len(text):
        raise DsnCodeError(text)
    return DsnCode(int(match[1]), int(match[2]), int(match[3]))


def leading_status(text: str) -> str | None:
    """Return the status that ``text`` starts with, None without one."""
    match = _STATUS.match(text)
    return match[0] if match else None


def split_status(text: str, default: str) -> tuple[str, str]:
    """Split ``5.1.1 text`` in two; without a status the default and the whole text."""
    match = _STATUS.match(text)
    if match is None:
        return default, text
    return match[0], text[match.end() :].lstrip(" \t")


def status_for(code: int, text: str) -> str:
    """Return the status of a reply: the one that ``text`` (behind the code) starts with, or ``X.0.0`` of the code's
    class.

    A code that is none of 2xx, 4xx and 5xx counts as a protocol error.
    """
    klass = code // 100
    if klass not in (2, 4, 5):
        return PROTOCOL_ERROR
    status = leading_status(text)
    if status is None or int(status[0]) != klass:
        return f"{klass}.0.0"
    return status


def with_class(status: str, klass: int) -> str:
    """Return ``status`` with another first digit."""
    return f"{klass}{status[1:]}"


def split_reply(text: str) -> CodedText | None:
    """Take ``550 5.1.1 text`` apart; None if it does not start with a reply code."""
    match = _REPLY.match(text)
    if match is None:
        return None
    code = int(match[1])
    rest = text[match.end() :]
    status = status_for(code, rest)
    return CodedText(code, status, split_status(rest, status)[1])

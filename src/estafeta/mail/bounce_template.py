"""Templates of notices: the built-in ones, those of a bounce_template_file, and how their text is expanded.

Source: bounce(5). The subjects, the first line and the box of the delay warning are what programs recognise notices by; the
rest of the built-in text is our own. Invariant: ``parse_templates`` returns or raises TemplateError.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

NAMES = ("failure_template", "delay_template", "success_template", "verify_template")
_FROM = "MAILER-DAEMON (Mail Delivery System)"
_START = re.compile(r"([A-Za-z0-9_]+)\s*=\s*<<\s*(\S+)\s*\Z")
_HEADER = re.compile(r"([A-Za-z-]+)[ \t]*:[ \t]*(.*)\Z")
_NAME = re.compile(r"\$(?:\$|([A-Za-z0-9_]+)|\{([A-Za-z0-9_]+)\}|\(([A-Za-z0-9_]+)\))")
_TIMES = ("delay_warning_time", "maximal_queue_lifetime")
_UNITS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400, "weeks": 604800}


class TemplateError(ValueError):
    """The template file is wrong; the text has the line number."""


@dataclass(frozen=True, slots=True)
class Template:
    """One kind of notice. ``text`` has its ``$`` names unexpanded and ends with a line end."""

    subject: str
    text: str
    sender: str = _FROM
    charset: str = "us-ascii"
    postmaster_subject: str = ""


_OPENING = "This is the mail system at host $myhostname.\n\n"
_CLOSING = "\n                   The mail system\n"

DEFAULTS: dict[str, Template] = {
    "failure_template": Template(
        "Undelivered Mail Returned to Sender",
        _OPENING
        + "I'm sorry to have to inform you that your message did not reach\n"
        "one or more of its recipients. The reasons are listed below, and\n"
        "the message is attached.\n\n"
        "The postmaster of this host can help; please send this report along.\n" + _CLOSING,
        postmaster_subject="Postmaster Copy: Undelivered Mail",
    ),
    "delay_template": Template(
        "Delayed Mail (still being retried)",
        _OPENING
        + "####################################################################\n"
        "# THIS IS A WARNING ONLY.  YOU DO NOT NEED TO RESEND YOUR MESSAGE. #\n"
        "####################################################################\n\n"
        "Your message has been waiting for more than $delay_warning_time_hours hour(s).\n"
        "It will be retried until it is $maximal_queue_lifetime_days day(s) old.\n\n"
        "The postmaster of this host can help; please send this report along.\n" + _CLOSING,
        postmaster_subject="Postmaster Warning: Delayed Mail",
    ),
    "success_template": Template(
        "Successful Mail Delivery Report",
        _OPENING + "Your message was successfully delivered to the destination(s)\n"
        "listed below. Where another mail system has taken it over, that\n"
        "system may still report a failure.\n" + _CLOSING,
    ),
    "verify_template": Template(
        "Mail Delivery Status Report",
        _OPENING + "Here is the mail delivery report that you asked for.\n" + _CLOSING,
    ),
}


def parse_templates(text: str) -> dict[str, Template]:
    """The templates of a file over the built-in ones; raises TemplateError."""
    found = dict(DEFAULTS)
    lines = iter(enumerate(text.split("\n"), 1))
    for number, line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        start = _START.match(line.strip())
        if start is None or start[1] not in NAMES:
            raise TemplateError(f"line {number}: need a template name, = and <<END")
        body: list[str] = []
        for _, inner in lines:
            if inner.rstrip() == start[2]:
                break
            body.append(inner.rstrip("\r"))
        else:
            raise TemplateError(f"line {number}: {start[1]}: no line with {start[2]} ends it")
        found[start[1]] = _template(body, found[start[1]], number)
    return found


def _template(body: list[str], default: Template, number: int) -> Template:
    values = {"from": default.sender, "subject": default.subject, "charset": default.charset,
              "postmaster-subject": default.postmaster_subject}  # fmt: skip
    position = 0
    while position < len(body) and body[position].strip():
        header = _HEADER.match(body[position])
        if header is None:
            break
        name = header[1].lower()
        if name not in values:
            raise TemplateError(f"line {number + position + 1}: unknown template header: {header[1]}")
        if not header[2].isascii():
            raise TemplateError(f"line {number + position + 1}: template header is not ASCII")
        values[name] = header[2].strip()
        position += 1
    if position < len(body) and not body[position].strip():
        position += 1
    text = "".join(line + "\n" for line in body[position:])
    if not text.isascii() and values["charset"].lower() == "us-ascii":
        raise TemplateError(f"line {number}: non-ASCII text needs a Charset: header")
    return Template(values["subject"], text, values["from"], values["charset"], values["postmaster-subject"])


def expand(text: str, lookup: Callable[[str], str], seconds: Callable[[str], float]) -> str:
    """Replace ``$name``; ``lookup`` knows parameters, ``seconds`` the times that a ``_hours`` suffix may be put to."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2] or match[3]
        if name is None:
            return "$"
        for parameter in _TIMES:
            unit = name[len(parameter) + 1 :]
            if name.startswith(parameter + "_") and unit in _UNITS:
                return str(int(seconds(parameter)) // _UNITS[unit])
        return lookup(name)

    return _NAME.sub(value, text)

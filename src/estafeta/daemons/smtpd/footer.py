"""smtpd_reject_footer: what the administrator wants said after every refusal.

Source: postconf(5) smtpd_reject_footer, smtpd_reject_footer_maps (asked with the whole reply), smtpd_expansion_filter.
Pure but for the table and the clock; a table that cannot be asked is a warning and no footer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from estafeta.config.config import Config
from estafeta.config.expand import ExpandError, expand
from estafeta.mail.text import to_bytes, to_text
from estafeta.system.immediate import run_now
from estafeta.tables.maps import Maps
from estafeta.tables.table import LookupFailed, OpenOptions

_REPLY = re.compile(rb"([45]\d\d)[ -]((?:[45]\.\d{1,3}\.\d{1,3} )?)")
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\])|([0-7]{1,3}))")
_PLAIN = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}


class Footer:
    """One service's footers."""

    def __init__(self, config: Config, options: OpenOptions, warn: Callable[[str], None]) -> None:
        self._text = config.raw("smtpd_reject_footer")
        self._maps = Maps(config.words("smtpd_reject_footer_maps"), options, "smtpd_reject_footer_maps")
        self._host = config.get("myhostname")
        self._allowed = frozenset(_unescaped(config.raw("smtpd_expansion_filter")))
        self._warn = warn

    def __bool__(self) -> bool:
        return bool(self._text or self._maps)

    def added(self, reply: bytes, address: str, port: str) -> bytes:
        """``reply`` (4NN or 5NN, without its last line end) with the footer."""
        start = reply.rfind(b"\n") + 1
        found = _REPLY.match(reply, start)
        if found is None:
            return reply
        template = self._template(reply)
        if not template:
            return reply
        joined = template.startswith("\\c")
        try:
            text = self._filled(template[2:] if joined else template, address, port)
        except ExpandError as error:
            self._warn(f"smtpd_reject_footer: {error}: {template}")
            return reply
        lines = to_bytes(text).split(b"\n")
        code, status = found[1], found[2]
        body = reply[start + 4 :]
        if joined:
            body += lines.pop(0)
        every = [body, *(status + line for line in lines)]
        out = [code + (b" " if number == len(every) else b"-") + line for number, line in enumerate(every, 1)]
        return reply[:start] + b"\r\n".join(out)

    def _template(self, reply: bytes) -> str:
        if self._maps:
            try:
                found = run_now(self._maps.find(to_text(reply)))
            except (LookupFailed, RuntimeError) as error:
                self._warn(f"smtpd_reject_footer_maps: {error}")
                return ""
            if found is not None:
                return found
        return self._text

    def _filled(self, template: str, address: str, port: str) -> str:
        values = {
            "client_address": address,
            "client_port": port,
            "localtime": time.strftime("%b %d %H:%M:%S"),
            "server_name": self._host,
        }

        def lookup(name: str) -> str | None:
            value = values.get(name)
            if value is None:
                self._warn(f'unknown macro name "{name}" in expansion request')
                return ""
            return "".join(c if c in self._allowed else "_" for c in value).replace("$", "$$")

        return expand(template.replace("\\n", "\n"), lookup)


def _unescaped(text: str) -> str:
    """C escapes, as Postfix reads smtpd_expansion_filter."""
    return _ESCAPE.sub(lambda found: _PLAIN[found[1]] if found[1] else chr(int(found[2], 8) & 0xFF), text)

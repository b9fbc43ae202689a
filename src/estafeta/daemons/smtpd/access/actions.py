"""What an access table or a policy server says, carried out.

Source: access(5) ACCEPT, REJECT and OTHER ACTIONS. A text that is none of the actions is a list of restrictions.
"""

from __future__ import annotations

import re

from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import CONFIGURATION_ERROR, PERMIT, Result, Scene, Verdict, split_status

_NUMBER = re.compile(r"([45]\d\d)(?:\s+|\Z)")
_MAX_DEPTH = 100


class TableActions:
    """See the module."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._reject_code = tools.config.int("access_map_reject_code")
        self._has_proxy = bool(tools.config.get("smtpd_proxy_filter"))
        self._defer_code = tools.config.int("access_map_defer_code")

    async def run(self, scene: Scene, source: str, text: str) -> Result:
        """Do what ``text`` (from ``source``: a table's name) says."""
        text = text.strip()
        word, _, rest = text.partition(" ")
        if "\t" in word:
            word, _, rest = text.partition("\t")
        rest = rest.strip()
        action = word.upper()
        if action == "DUNNO":
            return None
        if action == "OK" or (text.isascii() and text.isdigit()):
            return PERMIT
        number = _NUMBER.match(text)
        if number is not None:
            return self._refusal(scene, int(number[1]), text[number.end() :])
        handler = _ACTIONS.get(action)
        if handler is not None:
            if self._has_proxy and action in _FOR_CLEANUP:
                self._tools.warn(f"access table {source}: with smtpd_proxy_filter specified, action {action} is unavailable")
                return None
            return handler(self, scene, source, rest)
        return await self._restrictions(scene, source, text)

    def _refusal(self, scene: Scene, code: int, text: str) -> Verdict:
        dsn, text = split_status(text, f"{code // 100}.7.1")
        reason = text or "Access denied"
        return Verdict(code, scene.status(code, dsn), f"<{scene.name}>: {scene.kind} rejected: {reason}")

    def _reject(self, scene: Scene, source: str, text: str) -> Result:
        return self._refusal(scene, self._reject_code, text)

    def _defer(self, scene: Scene, source: str, text: str) -> Result:
        return self._refusal(scene, self._defer_code, text)

    def _defer_if_permit(self, scene: Scene, source: str, text: str) -> Result:
        scene.defer_if_permit(self._refusal(scene, self._defer_code, text or "Service unavailable"))
        return None

    def _defer_if_reject(self, scene: Scene, source: str, text: str) -> Result:
        scene.defer_if_reject(self._refusal(scene, self._defer_code, text or "Service unavailable"))
        return None

    @staticmethod
    def _noted(scene: Scene, what: str, text: str) -> None:
        scene.note(what, f"<{scene.name}>: {scene.kind} {text}")

    def _hold(self, scene: Scene, source: str, text: str) -> Result:
        self._noted(scene, "hold", text or "triggers HOLD action")
        scene.facts.act().hold = True
        return None

    def _discard(self, scene: Scene, source: str, text: str) -> Result:
        self._noted(scene, "discard", text or "triggers DISCARD action")
        scene.facts.act().discard = True
        return None

    def _filter(self, scene: Scene, source: str, text: str) -> Result:
        if not text:
            return self._broken(scene, source, "command FILTER requires transport:destination")
        if ":" not in text:
            self._tools.warn(f"access table {source} entry \"{scene.name}\" requires transport:destination")
            return None
        self._noted(scene, "filter", f"triggers FILTER {text}")
        scene.facts.act().filter = text
        return None

    def _redirect(self, scene: Scene, source: str, text: str) -> Result:
        if "@" not in text:
            self._tools.warn(f"access table {source} entry \"{scene.name}\" requires user@domain target")
            return None
        self._noted(scene, "redirect", f"triggers REDIRECT {text}")
        scene.facts.act().redirect = text
        return None

    def _bcc(self, scene: Scene, source: str, text: str) -> Result:
        if "@" not in text:
            self._tools.warn(f"access table {source} entry \"{scene.name}\" requires BCC user@domain")
            return None
        self._noted(scene, "bcc", f"triggers BCC {text}")
        scene.facts.act().bcc.append(text)
        return None

    def _prepend(self, scene: Scene, source: str, text: str) -> Result:
        if scene.stage == "end_of_data":
            self._tools.warn(f"access table {source}: action PREPEND must be used before smtpd_end_of_data_restrictions")
            return None
        name, colon, _ = text.partition(":")
        if not colon or not name.strip() or not all("!" <= c <= "~" for c in name.rstrip()):
            self._tools.warn(f'access table {source} entry "{scene.name}" requires header: text')
            return None
        scene.facts.act().prepend.append(text)
        return None

    def _warn(self, scene: Scene, source: str, text: str) -> Result:
        scene.note("warn", text)
        return None

    def _info(self, scene: Scene, source: str, text: str) -> Result:
        scene.note("info", text)
        return None

    def _broken(self, scene: Scene, source: str, problem: str) -> Verdict:
        self._tools.warn(f"access table {source}: {problem}")
        return CONFIGURATION_ERROR

    async def _restrictions(self, scene: Scene, source: str, text: str) -> Result:
        if scene.depth >= _MAX_DEPTH:
            return self._broken(scene, source, f"restriction lists nested too deeply at {text}")
        assert self._tools.run_words is not None
        return await self._tools.run_words(text, scene)


_ACTIONS = {
    "REJECT": TableActions._reject,
    "DEFER": TableActions._defer,
    "DEFER_IF_PERMIT": TableActions._defer_if_permit,
    "DEFER_IF_REJECT": TableActions._defer_if_reject,
    "HOLD": TableActions._hold,
    "DISCARD": TableActions._discard,
    "FILTER": TableActions._filter,
    "REDIRECT": TableActions._redirect,
    "BCC": TableActions._bcc,
    "PREPEND": TableActions._prepend,
    "WARN": TableActions._warn,
    "INFO": TableActions._info,
}
_FOR_CLEANUP = frozenset(("HOLD", "DISCARD", "FILTER", "REDIRECT", "BCC"))  # a before-queue filter cannot be told

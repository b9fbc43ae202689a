"""Who may use a sender address: reject_sender_login_mismatch and its kind.

Source: postconf(5) smtpd_sender_login_maps, SASL_README.
"""

from __future__ import annotations

from estafeta.config.values import split_words
from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import Check, Result, Scene, shown
from estafeta.mail.text import to_text
from estafeta.tables.maps import Maps


class Owners:
    """See the module."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._maps = Maps(tools.config.words("smtpd_sender_login_maps"), tools.options, "smtpd_sender_login_maps")
        self._no_sasl = not tools.config.bool("smtpd_sasl_auth_enable")  # then these restrictions are passed over
        self._delimiter = tools.config.get("recipient_delimiter")
        self.checks: dict[str, Check] = {
            "reject_sender_login_mismatch": self._both,
            "reject_authenticated_sender_login_mismatch": self._authenticated,
            "reject_unauthenticated_sender_login_mismatch": self._unauthenticated,
            "reject_known_sender_login_mismatch": self._known,
        }

    async def _owners(self, sender: bytes) -> list[str] | None:
        if not self._maps:
            return None
        route = await self._tools.resolve(sender)
        found = await self._maps.find_address(to_text(route.recipient), extension_delimiter=self._delimiter)
        return None if found is None else split_words(found.value)

    async def _check(self, scene: Scene, *, logged_in: bool, logged_out: bool, known_only: bool) -> Result:
        facts = scene.facts
        if not facts.sender or self._no_sasl:
            return None
        user = facts.sasl_username
        if not (logged_in if user else logged_out):
            return None
        owners = await self._owners(facts.sender)
        about = scene.about(shown(facts.sender), "Sender address")
        if user:
            if owners is None:
                return None if known_only else about.refuse(553, "5.7.1", f"not owned by user {user}")
            if not any(user.lower() == owner.lower() for owner in owners):
                return about.refuse(553, "5.7.1", f"not owned by user {user}")
        elif owners is not None:
            return about.refuse(553, "5.7.1", "not logged in")
        return None

    async def _both(self, scene: Scene) -> Result:
        return await self._check(scene, logged_in=True, logged_out=True, known_only=False)

    async def _authenticated(self, scene: Scene) -> Result:
        return await self._check(scene, logged_in=True, logged_out=False, known_only=False)

    async def _unauthenticated(self, scene: Scene) -> Result:
        return await self._check(scene, logged_in=False, logged_out=True, known_only=False)

    async def _known(self, scene: Scene) -> Result:
        return await self._check(scene, logged_in=True, logged_out=True, known_only=True)

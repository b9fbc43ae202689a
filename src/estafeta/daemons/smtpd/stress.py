"""Overload: every client that the service may have is there, and more are waiting.

Source: STRESS_README, postconf(5) stress. Postfix starts new processes with ``stress = yes``; here the worker changes over, for
the sessions that it has, too, and back again when nothing has been full for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estafeta.daemons.smtpd.settings import Settings, under_stress

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.service import Smtpd

_LASTS_S = 1000.0
_WARN_EVERY_S = 60.0


class Stress:
    """See the module. Owns which settings are in force."""

    def __init__(self, service: Smtpd, calm: Settings) -> None:
        self._service = service
        self._calm = calm
        self._stressed = under_stress(calm, service.config)
        self._until = 0.0
        self._warned_at = -_WARN_EVERY_S

    def begin(self) -> None:
        """The worker has all the clients that it may have."""
        service = self._service
        now = service.now()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            name = service.context.service.name
            limit = service.context.client_limit
            service.log.warning(
                f'service "{name}" has reached its process limit "{limit}": new clients may experience noticeable delays'
            )
            service.log.warning(
                "to avoid this condition, increase the process count in master.cf or reduce the service time per client"
            )
            service.log.warning(
                "see http://www.postfix.org/STRESS_README.html for examples of stress-adapting configuration settings"
            )
        self._until = now + _LASTS_S
        if service.settings is self._stressed or self._stressed == self._calm:
            return
        service.settings = self._stressed
        latest = now + self._stressed.timeout_s
        for session in service.sessions:
            session.deadline = min(session.deadline, latest)

    def tick(self, now: float) -> None:
        """Called now and then: is it over?"""
        if self._service.settings is self._stressed and now > self._until:
            self._service.settings = self._calm

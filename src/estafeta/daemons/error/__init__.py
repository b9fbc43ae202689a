"""error(8), retry: bounces or defers mail for the reason that the next hop gives."""

from estafeta.daemons.error.service import Error as DAEMON

__all__ = ["DAEMON"]

"""discard(8): throws mail away and says so."""

from estafeta.daemons.discard.service import Discard as DAEMON

__all__ = ["DAEMON"]

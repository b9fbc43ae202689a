"""smtp(8) and lmtp(8): deliver mail to other servers."""

from estafeta.daemons.smtp.service import Smtp as DAEMON

__all__ = ["DAEMON"]

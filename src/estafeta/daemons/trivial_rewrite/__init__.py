"""trivial-rewrite(8): the standard form of addresses, and where mail for them goes.

Source: trivial-rewrite(8), ADDRESS_CLASS_README, transport(5), relocated(5).
"""

from estafeta.daemons.trivial_rewrite.service import TrivialRewrite as DAEMON

__all__ = ["DAEMON"]

"""anvil(8): how many connections each client has, and how fast clients connect, send, name recipients, log in."""

from estafeta.daemons.anvil.service import Anvil as DAEMON

__all__ = ["DAEMON"]

"""showq(8): answers postqueue: the listing, and requests to flush, which go on to the queue manager.

``service`` speaks to the commands; ``spool.listing`` reads the queue.
"""

from estafeta.daemons.showq.service import Showq as DAEMON

__all__ = ["DAEMON"]

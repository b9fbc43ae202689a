"""qmgr(8): decides what is delivered when.

``service`` owns the queue and takes word of new mail; ``message`` is a message under way; ``destination`` a queue of requests for
one transport and next hop; ``feedback`` the concurrency arithmetic (pure); ``dispatch`` sends requests to agents; ``finish`` what
happens when every recipient has a result; ``deferred`` the queue runs; ``control`` what postqueue and postsuper ask for.
"""

from estafeta.daemons.qmgr.service import Qmgr as DAEMON

__all__ = ["DAEMON"]

"""pickup(8): takes local submissions into the queue.

``service`` moves files of ``maildrop/`` to cleanup; ``submission`` is the socket by which users without rights on ``maildrop/``
hand their mail in (docs/adr/0004-submission-without-setgid.md).
"""

from estafeta.daemons.pickup.service import Pickup as DAEMON

__all__ = ["DAEMON"]

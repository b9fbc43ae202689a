"""bounce(8), under the names bounce, defer and trace: tells senders, and the postmaster, what became of their mail.

``service`` decides who is told what; the message itself is made by ``mail.dsn_report`` from the templates of
``mail.bounce_template``.
"""

from estafeta.daemons.bounce.service import Bounce as DAEMON

__all__ = ["DAEMON"]

"""local(8): delivery to this machine's users, aliases, files and commands.

``settings`` reads the parameters, ``targets`` the right-hand sides of aliases and .forward files, ``attempt`` keeps what
becomes of one recipient while it expands, ``recipient`` decides (alias, user, unknown), ``forward`` reads .forward,
``mailbox`` delivers to a user's mailbox, ``external`` to files and commands, ``resubmit`` gives forwarded mail to the queue.
"""

from estafeta.daemons.local.service import Local as DAEMON

__all__ = ["DAEMON"]

"""virtual(8): mailboxes of virtual domains.

``settings`` reads the parameters, ``service`` finds mailbox and owner of a recipient and delivers.
"""

from estafeta.daemons.virtual.service import Virtual as DAEMON

__all__ = ["DAEMON"]

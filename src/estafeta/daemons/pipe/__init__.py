"""pipe(8): delivery to external commands: content filters, maildrop, UUCP, BSMTP.

``arguments`` makes the command line, ``message`` the input, ``service`` runs it and says what became of it.
"""

from estafeta.daemons.pipe.service import Pipe as DAEMON

__all__ = ["DAEMON"]

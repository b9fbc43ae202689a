"""smtpd(8): receives mail by SMTP.

``service`` is the worker's side (sockets, time-outs), ``session`` one conversation, ``envelope_commands`` MAIL and RCPT,
``transaction`` what they set, ``receive`` the content on its way to cleanup, ``access`` the restriction lists.
"""

from estafeta.daemons.smtpd.service import Smtpd as DAEMON

__all__ = ["DAEMON"]

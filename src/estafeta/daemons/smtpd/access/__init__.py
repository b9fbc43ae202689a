"""Who may do what: the restriction lists of smtpd(8).

``lists`` parses and walks them; ``verdict`` has the words they are written in; the other files have the restrictions, by what they
look at: ``generic``, ``names`` (client, HELO), ``relaying``, ``owners``, ``domains`` (DNS), ``table`` and ``servers`` (access(5)),
``blocklist`` (DNSBL), ``delegated`` (policy servers), ``verified`` (verify(8)). ``actions`` carries out what an access table says.
"""

from estafeta.config.restrictions import STAGES
from estafeta.daemons.smtpd.access.lists import Access
from estafeta.daemons.smtpd.access.verdict import MAPPING, PERMIT, Actions, Facts, Verdict, is_hostname, is_numeric, logged, shown

__all__ = ["MAPPING", "PERMIT", "STAGES", "Access", "Actions", "Facts", "Verdict", "is_hostname", "is_numeric", "logged", "shown"]

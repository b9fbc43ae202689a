"""cleanup(8): makes incoming mail complete and safe.

``service`` takes requests, ``message`` drives one message, ``headers`` completes and rewrites headers, ``recipients`` maps and
expands the envelope, ``settings`` reads the parameters.
"""

from estafeta.daemons.cleanup.service import Cleanup as DAEMON

__all__ = ["DAEMON"]

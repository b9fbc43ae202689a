"""verify(8): is mail for an address deliverable? Probes find out (``service``), a cache remembers (``cache``)."""

from estafeta.daemons.verify.service import Verify as DAEMON

__all__ = ["DAEMON"]

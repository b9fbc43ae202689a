"""postlogd(8): writes what commands without rights on maillog_file have to log. See ``service``."""

from estafeta.daemons.postlogd.service import Postlogd as DAEMON

__all__ = ["DAEMON"]

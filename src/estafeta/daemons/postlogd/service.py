"""One datagram, one line: ``tag[pid]: text``, to which time and host name are added.

Source: postlogd(8). Our daemons write maillog_file themselves (they open it before they drop privileges); this service is for
commands. What comes in is untrusted: control characters are replaced, a line without a tag gets postlogd's own.
"""

from __future__ import annotations

import re

from estafeta.service.daemon import Daemon
from estafeta.system.log import Severity

_LINE = re.compile(r"([!-~]{1,100}?\[[0-9]{1,10}\]): ?(.*)", re.DOTALL)


class Postlogd(Daemon):
    """postlogd(8)."""

    max_workers = 1

    def on_trigger(self, letters: bytes) -> None:
        text = letters.decode("utf-8", "replace").rstrip("\n\0")
        found = _LINE.fullmatch(text)
        if found is None:
            self.log.info(text)
            return
        line = "".join(c if c.isprintable() else "?" for c in found[2])
        self.log.sink.emit(Severity.INFO, found[1], line)
        self.log.flush()

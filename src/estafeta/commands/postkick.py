"""postkick(1): send a request to a service's local socket: ``postkick public qmgr IDFA``.

Source: postkick(1); messages and exit statuses as Postfix 3.7 has them (measured).
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

from estafeta.config.config import load_config
from estafeta.config.errors import ConfigError

_USAGE = "usage: postkick [-c config_dir] [-v] class service request"
_WAIT_S = 10.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run postkick with ``argv`` (without the program's name); the exit status."""
    import getopt

    try:
        options, words = getopt.getopt(list(sys.argv[1:] if argv is None else argv), "c:v")
    except getopt.GetoptError:
        words, options = [], []
    if len(words) != 3:
        sys.stderr.write(f"postkick: fatal: {_USAGE}\n")
        return 1
    kind, service, request = words
    try:
        os.chdir(load_config(dict(options).get("-c")).get("queue_directory"))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"postkick: fatal: {error}\n")
        return 1
    path = f"{kind}/{service}"
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_WAIT_S)
            link.connect(path)
            link.sendall(request.encode("utf-8", "surrogateescape"))
    except OSError as error:
        sys.stderr.write(f"postkick: warning: unable to connect to {path}: {error.strerror or error}\n")
        sys.stderr.write(f"postkick: warning: Cannot contact class {kind} service {service} - perhaps the mail system is down\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

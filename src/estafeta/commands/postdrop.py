"""postdrop(1): put a submission from standard input into ``maildrop/``.

Source: postdrop(1). What comes in is our maildrop codec (``mail.maildrop``): the form is private to sendmail and postdrop, as
Postfix's is. Exit status 0 with ``0 name`` on standard output when it is safe; 75 with a reason on standard error when not.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from estafeta.config.config import load_config
from estafeta.config.errors import ConfigError
from estafeta.mail import maildrop
from estafeta.spool.maildrop import SubmitError, submit

_USAGE = "usage: postdrop [-c config_dir] [-rv]"


def main(argv: Sequence[str] | None = None) -> int:
    """Run postdrop with ``argv`` (without the program's name); the exit status."""
    import getopt

    try:
        options, rest = getopt.getopt(list(sys.argv[1:] if argv is None else argv), "c:rv")
    except getopt.GetoptError as error:
        sys.stderr.write(f"postdrop: {error}\n")
        return _fatal(_USAGE)
    if rest:
        return _fatal(_USAGE)
    try:
        config = load_config(dict(options).get("-c"))
        from estafeta.commands.sendmail import is_authorized, login_name

        login = login_name()
        if not is_authorized(config, login):
            return _fatal(f"User {login}({os.getuid()}) is not allowed to submit mail")
        limit = config.size("message_size_limit")
        submission = maildrop.decode(sys.stdin.buffer.read())
        if limit and len(submission.content) > limit:
            return _fatal(f"uid={os.getuid()}: File too large")
        submission.uid = os.getuid()
        submission.arrived_at = time.time()
        name = submit(config.get("queue_directory"), maildrop.encode(submission))
    except maildrop.MaildropError as error:
        return _fatal(f"uid={os.getuid()}: malformed input: {error}")
    except (ConfigError, OSError, SubmitError) as error:
        return _fatal(str(error))
    print(f"0 {name}")
    return 0


def _fatal(text: str) -> int:
    sys.stderr.write(f"postdrop: fatal: {text}\n")
    return 75


if __name__ == "__main__":
    sys.exit(main())

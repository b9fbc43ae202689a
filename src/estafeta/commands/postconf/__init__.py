"""postconf(1): show and edit the configuration.

Source: postconf(1); output, messages and exit codes as Postfix 3.7 has them (measured).
Not here: bounce templates (`-b`, `-t`), which belong to bounce(8).
"""

from __future__ import annotations

import os
import sys

from estafeta.commands.postconf.options import Options, UsageError, parse_options
from estafeta.config.errors import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Run postconf with `argv` (without the program's name); the exit status: 0, or 1 after a fatal error."""
    try:
        options = parse_options(sys.argv[1:] if argv is None else argv)
        status = _run(options)
        sys.stdout.flush()
    except (UsageError, ConfigError) as error:
        sys.stdout.flush()
        from estafeta.commands.postconf.show_main import printable

        print(f"postconf: fatal: {printable(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return status


def _run(options: Options) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
    if options.editing:
        from estafeta.commands.postconf.edit import run_edit

        return run_edit(options)
    if options.mode == "main":
        from estafeta.commands.postconf.show_main import show_main

        return show_main(options)
    if options.mode in ("M", "F", "P"):
        from estafeta.commands.postconf.show_master import show_master

        return show_master(options)
    from estafeta.commands.postconf.lists import show_list

    return show_list(options)


if __name__ == "__main__":
    sys.exit(main())

"""mailq(1): the queue as a table; what ``sendmail -bp`` and ``postqueue -p`` print."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from estafeta.commands.postqueue import main as postqueue


def main(argv: Sequence[str] | None = None) -> int:
    """Run mailq with ``argv`` (without the program's name); sendmail's options are understood. The exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        return postqueue(["-p"])
    from estafeta.commands.sendmail import main as sendmail

    return sendmail(["-bp", *arguments])


if __name__ == "__main__":
    sys.exit(main())

"""postsuper(1): delete, hold, release and requeue messages; clean up the queue.

``options`` reads the command line, ``running`` asks the queue manager, ``stopped`` does the same to the files when it does not
run, ``structure`` is -s and -p. Restricted to root and the owner of the queue. Every line goes to standard error and the log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from estafeta.commands.postsuper.options import Options, UsageError, read_options
from estafeta.config.config import Config, load_config
from estafeta.config.errors import ConfigError

__all__ = ["main"]

_DONE = {"delete": "removed", "hold": "placed on hold", "release": "released from hold", "requeue": "requeued"}
_SUMMARY = {"delete": "Deleted", "hold": "Placed on hold", "release": "Released from hold", "requeue": "Requeued"}


class Queue(Protocol):
    """What both ways of working on the queue can do."""

    def apply(self, verb: str, queues: tuple[str, ...], ids: list[str]) -> list[str]:
        """Do ``verb`` to the messages ``ids`` (or ALL) of ``queues``; the ids that were touched. Raises OSError."""

    def close(self) -> None:
        """Give it up."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run postsuper with ``argv`` (without the program's name); the exit status."""
    try:
        options = read_options(list(sys.argv[1:] if argv is None else argv))
        config = load_config(options.directory)
        queue_directory = config.get("queue_directory")
        if os.geteuid() != 0 and os.geteuid() != os.stat(os.path.join(queue_directory, "active")).st_uid:
            raise UsageError("use of this command is reserved for the superuser")
        return _run(options, config, queue_directory)
    except UsageError as error:
        for note in error.notes:
            sys.stderr.write(f"postsuper: {note}\n")
        sys.stderr.write(f"postsuper: fatal: {error}\n")
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"postsuper: fatal: {error}\n")
    except KeyboardInterrupt:
        pass
    return 1


def _reporter(config: Config) -> Callable[[str], None]:
    """Says a line on standard error and in the log."""
    from estafeta.system.log import Log, open_sink

    log: Log | None = None
    try:
        hostname = config.get("myhostname").partition(".")[0]
        sink = open_sink(config.get("maillog_file"), config.get("syslog_facility"), hostname)
        log = Log(sink, config.get("syslog_name") + "/postsuper")
    except OSError:
        pass

    def say(text: str) -> None:
        sys.stderr.write(f"postsuper: {text}\n")
        if log is not None:
            log.info(text)

    return say


def _become_owner(queue_directory: str) -> None:
    """root works as the queue's owner: what is made on the way must be the queue manager's to change."""
    if os.geteuid() == 0:
        owner = os.stat(os.path.join(queue_directory, "active"))
        os.setgroups([])
        os.setegid(owner.st_gid)
        os.seteuid(owner.st_uid)


def _run(options: Options, config: Config, queue_directory: str) -> int:
    say = _reporter(config)
    # Everything is imported before root becomes somebody who may not be able to read where Python lives.
    from estafeta.commands.postsuper import running, stopped, structure  # noqa: F401

    _become_owner(queue_directory)
    if options.purge or options.structure:
        structure.run(queue_directory, options, say)
    if not options.actions:
        return 0
    queue = open_queue(queue_directory)
    try:
        for action in options.actions:
            wanted = []
            for queue_id in action.ids:
                if queue_id.isascii() and queue_id.isalnum():
                    wanted.append(queue_id)
                else:
                    say(f"warning: invalid mail queue id: {queue_id}")
            touched = queue.apply(action.verb, action.queues, wanted) if wanted else []
            if "ALL" not in wanted:
                for queue_id in touched:
                    say(f"{queue_id}: {_DONE[action.verb]}")
            say(f"{_SUMMARY[action.verb]}: {len(touched)} message{'' if len(touched) == 1 else 's'}")
    finally:
        queue.close()
    return 0


def open_queue(queue_directory: str) -> Queue:
    """The queue manager, if it runs, else the files; raises OSError."""
    from estafeta.commands.postsuper.running import RunningQueue
    from estafeta.commands.postsuper.stopped import StoppedQueue
    from estafeta.spool.queue import SpoolBusy

    try:
        return StoppedQueue(queue_directory)
    except SpoolBusy:
        return RunningQueue(queue_directory)


if __name__ == "__main__":
    sys.exit(main())

"""postsuper -s and -p: damaged and misnamed queue files, temporary files that a crash left."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from estafeta.commands.postsuper.options import Options
from estafeta.spool import layout, scan
from estafeta.spool import maildrop as drop
from estafeta.spool.queue import QueueStore, SpoolBusy

OLD_S = 24 * 3600.0  # a temporary file that nobody touched for so long is nobody's


def run(queue_directory: str, options: Options, say: Callable[[str], None]) -> None:
    """Do what is asked for; raises OSError. The structure is only looked at while the queue manager does not run."""
    queues = options.queues or ("maildrop", "incoming", "active", "deferred", "hold")
    if options.structure:
        _structure(queue_directory, queues, say)
    if options.purge:
        for path in _temporary(queue_directory, queues, time.time() - OLD_S):
            say(f"removing old temporary file: {os.path.relpath(path, queue_directory)}")
            os.unlink(path)


def _structure(queue_directory: str, queues: tuple[str, ...], say: Callable[[str], None]) -> None:
    try:
        store = QueueStore(queue_directory)
    except SpoolBusy:
        return
    try:
        for queue in ("deferred", "hold"):
            if queue not in queues:
                continue
            for name in list(scan.own_file_names(queue_directory, queue)):
                _check(queue_directory, name, store, say)
    finally:
        store.close()


def _check(queue_directory: str, name: str, store: QueueStore, say: Callable[[str], None]) -> None:
    try:
        messages = [item for item in scan.recover_file(queue_directory, name) if isinstance(item, scan.Queued)]
    except OSError as error:
        say(f"warning: {name}: {error.strerror or error}")
        return
    if len(messages) != 1:
        say(f"warning: {name}: damaged queue file, saved as {store.set_aside(name)}")
        return
    directory, _, base = name.rpartition("/")
    queue_id = messages[0].envelope.queue_id
    if base != queue_id:
        target = os.path.join(queue_directory, directory, queue_id)
        if os.path.exists(target):
            say(f"warning: {name}: {queue_id} exists already; left alone")
            return
        os.rename(os.path.join(queue_directory, name), target)
        layout.sync_directory(os.path.join(queue_directory, directory))
        say(f"renamed {name} to {directory}/{queue_id}")


def _temporary(queue_directory: str, queues: tuple[str, ...], older_than: float) -> Iterator[str]:
    if "maildrop" in queues:
        yield from drop.temporary_names(queue_directory, older_than)
    for queue in queues:
        if queue == "maildrop" or queue not in layout.QUEUES:
            continue
        for top, _, names in os.walk(os.path.join(queue_directory, queue)):
            for name in names:
                path = os.path.join(top, name)
                if name.startswith(layout.TEMPORARY_PREFIX):
                    try:
                        if os.stat(path).st_mtime < older_than:
                            yield path
                    except OSError:
                        continue

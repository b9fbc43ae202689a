"""Queue runs: deferred messages whose time has come go back to work, as many as there is room for.

Source: postconf(5) queue_run_delay; DESIGN section 3 (a run reads what is due, not what is there).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from estafeta.spool.scan import Queued

if TYPE_CHECKING:
    from estafeta.daemons.qmgr.service import Qmgr

_AT_ONCE = 50  # messages read in one turn of the loop


class DeferredScanner:
    """See the module."""

    def __init__(self, qmgr: Qmgr) -> None:
        self._qmgr = qmgr
        self._run: Iterator[Queued | str] | None = None
        self._again: float | None = None  # another run was asked for: up to this time
        self._timer: asyncio.TimerHandle | None = None
        self._step_scheduled = False
        self._stopped = False

    def start(self) -> None:
        """Run now and every queue_run_delay."""
        self._tick()

    def restart(self) -> None:
        """The parameters have changed."""
        if self._timer is not None:
            self._timer.cancel()
        self._tick()

    def stop(self) -> None:
        """No more runs."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self.run_now()
        self._timer = self._qmgr.context.loop.call_later(self._qmgr.settings.queue_run_delay_s, self._tick)

    def run_now(self, until: float | None = None) -> None:
        """Take up what is due (all that is due before ``until``)."""
        limit = time.time() if until is None else until
        if self._run is not None:
            self._again = max(self._again or 0.0, limit)
            return
        self._run = self._qmgr.store.due(limit)
        self._schedule()

    def flush(self) -> None:
        """postqueue -f: take up everything, whatever its time."""
        self._qmgr.dispatcher.revive_all()
        for message in self._qmgr.active.values():
            if message.moving:  # not yet where the run below would find it
                message.released = True
        self.run_now(float(1 << 40))

    def room(self) -> None:
        """The active queue has room again."""
        if self._run is not None:
            self._schedule()

    def _schedule(self) -> None:
        if not self._step_scheduled and not self._stopped:
            self._step_scheduled = True
            self._qmgr.context.loop.call_soon(self._step)

    def _step(self) -> None:
        self._step_scheduled = False
        qmgr = self._qmgr
        run = self._run
        if run is None or self._stopped:
            return
        for _ in range(_AT_ONCE):
            if len(qmgr.active) >= qmgr.settings.active_limit:
                return  # room() goes on
            item = next(run, None)
            if item is None:
                self._run = None
                if self._again is not None:
                    limit, self._again = self._again, None
                    self.run_now(limit)
                return
            if isinstance(item, str):
                qmgr.set_aside(item)
            elif item.envelope.queue_id not in qmgr.active:
                qmgr.activate(item.place, item.envelope, item.done)
        self._schedule()

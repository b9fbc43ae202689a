"""When does the master start a worker? Pure decisions over counters; no process, no clock of its own.

Source: master(8), master(5) maxproc. Postfix counts processes; Estafeta counts clients (``maxproc``) and starts at most one
worker a core: each worker may serve an equal share of the limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class ServiceState:
    """What the master knows of the workers of one service."""

    max_workers: int
    client_limit: int  # for the service; 0: no limit
    available: set[int] = field(default_factory=set)  # pids that said they take clients readily
    busy: set[int] = field(default_factory=set)
    throttled_until: float = 0.0

    @property
    def workers(self) -> int:
        return len(self.available) + len(self.busy)


def worker_share(client_limit: int, max_workers: int, worker: int) -> int:
    """The client limit of worker number ``worker`` (from 0): the shares add up to the limit. 0 stays "no limit"."""
    if client_limit == 0:
        return 0
    return client_limit // max_workers + (1 if worker < client_limit % max_workers else 0)


def workers_for(maxproc: int, cores: int, most: int) -> int:
    """How many workers a service may have: one a core, never more than clients, never more than ``most`` (0: no bound)."""
    workers = cores if maxproc == 0 else min(cores, maxproc)
    return max(1, min(workers, most) if most else workers)


def wants_listening(state: ServiceState, now: float) -> bool:
    """True if the master itself must watch the sockets: nobody takes clients readily and a worker may be started."""
    return not state.available and state.workers < state.max_workers and now >= state.throttled_until

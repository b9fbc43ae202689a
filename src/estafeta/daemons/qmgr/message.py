"""A message under way, and one request for some of its recipients."""

from __future__ import annotations

from dataclasses import dataclass, field

from estafeta.ipc.messages import Envelope, Place, RecipientResult


@dataclass(slots=True, eq=False)
class Message:
    """In the active queue. ``waiting`` counts recipients that have no result yet in this pass."""

    place: Place
    envelope: Envelope
    active_since: float
    waiting: int
    done: set[int] = field(default_factory=set)  # finished before this pass, or sent in it
    deferred: list[tuple[int, RecipientResult]] = field(default_factory=list)
    bounced: list[tuple[int, RecipientResult]] = field(default_factory=list)
    sent: list[tuple[int, RecipientResult]] = field(default_factory=list)  # only those that asked to hear of it
    dropped: bool = False  # deleted by postsuper while deliveries were under way
    hold: bool = False
    released: bool = False  # leaves hold/, or was flushed while it moved: delivered as soon as it is safe in deferred/
    moving: bool = False  # on its way to deferred/


@dataclass(slots=True, eq=False)
class Request:
    """Recipients of one message for one destination."""

    message: Message
    indexes: list[int]

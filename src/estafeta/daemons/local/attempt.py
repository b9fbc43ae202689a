"""What becomes of one recipient of a request while it expands into many.

Invariants: the recipient is done when every result is final; one that is to be tried again makes the whole recipient be tried
again (twice is better than never); nothing is reported before forwarded mail is safe in the queue.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from estafeta.delivery.mailbox import Source
from estafeta.delivery.report import Delivery
from estafeta.ipc.messages import Outcome, Recipient
from estafeta.mail.text import to_text
from estafeta.system.privilege import User

RELAY = "local"


@dataclass(frozen=True, slots=True)
class Address:
    """A local recipient: whole address, localpart in lower case, user and extension, domain."""

    whole: bytes
    local: str
    user: str
    extension: str
    domain: str


@dataclass(frozen=True, slots=True)
class State:
    """Where in the expansion we are. ``rights``: on whose behalf files and commands act (None: default_privs)."""

    address: Address
    sender: bytes
    has_owner: bool = False
    rights: User | None = None
    source: str = ""  # alias, forward, include or empty
    aliases: tuple[str, ...] = ()  # those that led here
    forwarded_by: str = ""  # the user whose .forward led here
    directly: bool = False  # \user: no alias, no .forward
    depth: int = 0

    def at(self, address: Address, *, directly: bool = False) -> State:
        """One step deeper, at ``address``."""
        return replace(self, address=address, directly=directly, depth=self.depth + 1)


@dataclass(slots=True)
class Attempt:
    """One recipient of one request."""

    delivery: Delivery
    index: int
    source: Source
    seen: frozenset[bytes]  # Delivered-To
    delivered: bytes  # our Delivered-To
    results: list[tuple[Outcome, str, str]] = field(default_factory=list)
    forwards: dict[bytes, list[Recipient]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)

    @property
    def recipient(self) -> Recipient:
        """As the queue manager gave it."""
        return self.delivery.recipient(self.index)

    def at(self, address: bytes) -> Recipient:
        """The recipient of a log line about ``address``."""
        mine = self.recipient
        return Recipient(address, mine.original or (mine.address if address != mine.address else b""))

    def result(self, state: State, outcome: Outcome, dsn: str, text: str) -> None:
        """A final or temporary result somewhere in the expansion."""
        self.results.append((outcome, dsn, text))
        self.delivery.log_result(self.at(state.address.whole), outcome, dsn, text, RELAY)

    def sent(self, state: State, text: str) -> None:
        self.result(state, Outcome.SENT, "2.0.0", text)

    def failed(self, state: State, dsn: str, text: str) -> None:
        """Deferred or bounced by the class of ``dsn``."""
        self.result(state, Outcome.DEFERRED if dsn.startswith("4") else Outcome.BOUNCED, dsn, text)

    def is_duplicate(self, what: str, limit: int) -> bool:
        """True the second time (while not more than ``limit`` are remembered; 0: no limit)."""
        if what in self.known:
            return True
        if not limit or len(self.known) < limit:
            self.known.add(what)
        return False

    def settle(self) -> None:
        """Report to the queue manager: what is worst counts."""
        for outcome in (Outcome.DEFERRED, Outcome.BOUNCED, Outcome.SENT):
            for found, dsn, text in self.results:
                if found is outcome:
                    action = "expanded" if len(self.results) > 1 else "delivered"
                    self.delivery.record(self.index, outcome, dsn, text, action if outcome is Outcome.SENT else "")
                    return
        # Every branch was left as done elsewhere: they lead to one another (.forward files), and nothing was delivered.
        text = f"mail forwarding loop for {to_text(self.recipient.address)}"
        self.delivery.bounced(self.index, "5.4.6", text, RELAY)

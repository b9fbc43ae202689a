"""Numbered messages under load, and the count of what arrived: the tests with kill -9 are made of these."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable

TAG = re.compile(rb"^X-Tag: (\S+?)\r?$", re.MULTILINE)


class Load(threading.Thread):
    """Calls ``send(tag)`` until told to stop; ``acknowledged`` has the tags for which it returned true."""

    def __init__(self, name: str, send: Callable[[str], bool], pause_s: float = 0.0) -> None:
        super().__init__(name=name, daemon=True)
        self._send = send
        self._stop_now = threading.Event()
        self._pause_s = pause_s
        self.acknowledged: set[str] = set()
        self.failure: Exception | None = None

    def run(self) -> None:
        number = 0
        try:
            while not self._stop_now.is_set():
                number += 1
                tag = f"{self.name}-{number}"
                if self._send(tag):
                    self.acknowledged.add(tag)
                if self._pause_s:
                    time.sleep(self._pause_s)
        except Exception as error:  # noqa: BLE001 - the test has to see it
            self.failure = error

    def finish(self) -> set[str]:
        """Stop sending; what was acknowledged."""
        self._stop_now.set()
        self.join(90)
        assert not self.is_alive()
        if self.failure is not None:
            raise self.failure
        return self.acknowledged


def tags_in(texts: Iterable[bytes]) -> Counter[str]:
    """How often each tag is there."""
    return Counter(found.decode() for text in texts for found in TAG.findall(text))


def check(acknowledged: set[str], got: Counter[str], kills: int, in_flight: int = 60) -> None:
    """Everything that was acknowledged is there; no more twice than can have been in flight at ``kills`` moments."""
    lost = acknowledged - set(got)
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged messages lost: {sorted(lost)[:5]}"
    twice = sum(count - 1 for count in got.values())
    assert twice <= kills * in_flight, f"{twice} duplicates after {kills} kills"
    print(f"{kills} kills, {len(acknowledged)} acknowledged, {len(got)} arrived, {twice} twice")

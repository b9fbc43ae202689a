"""postsuper while the queue manager runs: it owns the queue, so it does the work."""

from __future__ import annotations

import os
import socket

from estafeta.ipc.frames import FrameError, FrameReader, encode_frame
from estafeta.ipc.messages import QueueCommand, QueueCommandReply

TIMEOUT_S = 600.0
AT_ONCE = 500  # ids a request


class RunningQueue:
    """A connection to the queue manager."""

    def __init__(self, queue_directory: str) -> None:
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.settimeout(TIMEOUT_S)
        try:
            self._link.connect(os.path.join(queue_directory, "public", "qmgr"))
        except OSError as error:
            self._link.close()
            raise OSError(f"connect to the queue manager: {error.strerror or error}") from None
        self._reader = FrameReader()
        self._number = 0

    def apply(self, verb: str, queues: tuple[str, ...], ids: list[str]) -> list[str]:
        """See ``Queue``."""
        touched: list[str] = []
        if "ALL" in ids:
            ids = ["ALL"]
        for start in range(0, len(ids), AT_ONCE):
            touched += self._ask(QueueCommand(verb, [*queues, ":", *ids[start : start + AT_ONCE]]))
        return touched

    def _ask(self, command: QueueCommand) -> list[str]:
        self._number += 1
        self._link.sendall(encode_frame(self._number, command))
        while True:
            data = self._link.recv(65536)
            if not data:
                raise OSError("the queue manager went away")
            try:
                for number, message in self._reader.feed(data):
                    if number == self._number:
                        if isinstance(message, QueueCommandReply):
                            return message.lines if message.ok else []
                        raise OSError(f"the queue manager refused: {message}")
            except FrameError as error:
                raise OSError(f"the queue manager: {error}") from None

    def close(self) -> None:
        """See ``Queue``."""
        self._link.close()

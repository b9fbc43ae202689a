"""A small policy server for tests: remembers every request, answers by the sender's localpart."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Answer = Callable[[dict[str, str]], str | None]


class PolicyServer:
    """Serves on a listening socket until closed. ``answer`` gives the action; None: hang up without one."""

    def __init__(self, listener: socket.socket, answer: Answer) -> None:
        self._listener = listener
        self._answer = answer
        self.requests: list[list[tuple[str, str]]] = []
        self.connections = 0
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="policy-server", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(link)
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with link, link.makefile("rb") as lines:
            request: list[tuple[str, str]] = []
            for line in lines:
                text = line.decode("utf-8", "replace").rstrip("\n")
                if text:
                    name, _, value = text.partition("=")
                    request.append((name, value))
                    continue
                self.requests.append(request)
                action = self._answer(dict(request))
                request = []
                if action is None:
                    break
                link.sendall(f"action={action}\n\n".encode())
        self._open.discard(link)

    def close(self) -> None:
        """Stop and hang up."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept()
        self._listener.close()
        for link in list(self._open):
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

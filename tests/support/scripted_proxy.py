"""An SMTP server for before-queue filter tests: it answers as told by the sender's address, and keeps what it heard.

``MAIL FROM:<word+word@...>``: each word names a deviation (see _Talk). Everything else is accepted.
"""

from __future__ import annotations

import contextlib
import socket
import threading

GOOD = {
    "EHLO": "250-proxy.test\r\n250-XFORWARD NAME ADDR PROTO HELO PORT IDENT SOURCE DOMAIN\r\n250 8BITMIME",
    "XFORWARD": "250 xf ok",
    "MAIL": "250 2.1.0 sender fine",
    "RCPT": "250 2.1.5 recipient fine",
    "DATA": "354 go",
    ".": "250 2.0.0 proxy took it",
    "QUIT": "221 bye",
}
DEVIATIONS = {
    "mail5": ("MAIL", "550 5.1.0 no such sender"),
    "mail4": ("MAIL", "451 4.1.0 sender later"),
    "rcpt5": ("RCPT", "550 5.1.1 no such recipient"),
    "data5": ("DATA", "554 5.5.1 no data"),
    "data250": ("DATA", "250 what"),
    "dot5": (".", "550 5.7.1 content refused"),
    "dot4": (".", "451 4.7.1 content later"),
    "dotlines": (".", "550-5.7.1 content refused\r\n550 5.7.1 second line"),
    "dotnodsn": (".", "550 plain words"),
    "dot354": (".", "354 more"),
    "dotgarbage": (".", "what is this"),
    "dotlong": (".", "250 2.0.0 " + "x" * 3000),
    "dotclose": (".", ""),
    "mailclose": ("MAIL", ""),
    "rcptclose": ("RCPT", ""),
    "dataclose": ("DATA", ""),
    "dotsilent": (".", "SILENT"),
    "rcptsilent": ("RCPT", "SILENT"),
    "dot421": (".", "421 4.3.0 going down"),
    "rcpt421": ("RCPT", "421 4.3.0 going down"),
    "rcpt251": ("RCPT", "251 2.1.5 will forward"),
    "rcpt2": ("RCPT2", "550 5.1.1 not the second"),
}


class ScriptedProxy:
    """Listens on a port of 127.0.0.1. ``greeting``, ``ehlo``, ``xforward``: replies in place of the usual; "" hangs up."""

    def __init__(self, *, greeting: str = "220 proxy.test ready", ehlo: str = GOOD["EHLO"], xforward: str = GOOD["XFORWARD"],
                 helo: str = "250 proxy.test") -> None:
        self._greeting = greeting
        self._usual = {**GOOD, "EHLO": ehlo, "XFORWARD": xforward, "HELO": helo}
        self._server = socket.create_server(("127.0.0.1", 0), backlog=50)
        self.port: int = self._server.getsockname()[1]
        self.heard: list[list[str]] = []
        self._links: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def take(self) -> list[list[str]]:
        """What was heard since the last call, a list for each connection."""
        heard, self.heard = self.heard, []
        return heard

    def close(self) -> None:
        """Stop."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for link in self._links:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._server.accept()
            except OSError:
                return
            self._links.append(link)
            lines: list[str] = []
            self.heard.append(lines)
            threading.Thread(target=self._talk, args=(link, lines), daemon=True).start()

    def _talk(self, link: socket.socket, heard: list[str]) -> None:
        with link, link.makefile("rb") as file, contextlib.suppress(OSError):
            usual = dict(self._usual)
            recipients = 0
            if not self._say(link, self._greeting):
                return
            while line := file.readline():
                text = line.decode("latin-1").removesuffix("\r\n")
                heard.append(text)
                verb = text.split(" ")[0].upper()
                if verb == "MAIL":
                    local = text.partition("<")[2].partition("@")[0]
                    usual.update(DEVIATIONS[word] for word in local.split("+") if word in DEVIATIONS)
                recipients += verb == "RCPT"
                if verb == "RCPT" and recipients == 2 and "RCPT2" in usual:
                    if not self._say(link, usual["RCPT2"]):
                        return
                    continue
                if not self._say(link, usual.get(verb, "500 what?")) or verb == "QUIT":
                    return
                if verb == "DATA" and usual["DATA"].startswith("354"):
                    while (line := file.readline()) not in (b".\r\n", b""):
                        heard.append("| " + line.decode("latin-1").removesuffix("\r\n"))
                    if not line or not self._say(link, usual["."]):
                        heard.append("EOF" if not line else ".")
                        return
                    heard.append(".")
            heard.append("EOF")

    @staticmethod
    def _say(link: socket.socket, reply: str) -> bool:
        if reply == "SILENT":
            return True
        if reply:
            link.sendall(reply.encode() + b"\r\n")
        return bool(reply)

"""A scripted SMTP or LMTP server for tests: it answers by a table, and misbehaves on demand.

``replies`` maps a verb (``GREETING``, ``EHLO``, ``MAIL``, ``RCPT``, ``RCPT:address``, ``DATA``, ``DOT`` ...) to what is
said: a reply without CRLF, ``close`` (hang up), ``silence``, or a list of those, used one after the other (the last one
stays). What it heard is in ``sessions``.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

DEFAULTS: dict[str, str] = {
    "GREETING": "220 sink.example ESMTP",
    "EHLO": "250-sink.example\r\n250-PIPELINING\r\n250-SIZE 100000000\r\n250-8BITMIME\r\n250 DSN",
    "LHLO": "250-sink.example\r\n250-PIPELINING\r\n250 8BITMIME",
    "HELO": "250 sink.example",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 End data with <CR><LF>.<CR><LF>",
    "DOT": "250 2.0.0 Ok: queued",
    "RSET": "250 2.0.0 Ok",
    "QUIT": "221 2.0.0 Bye",
}


@dataclass
class Heard:
    """One connection: its command lines, and the contents as they came (dots still doubled)."""

    commands: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    ended: bool = False


class SmtpSink:
    """See the module. Use ``async with SmtpSink(...) as sink``; ``sink.port`` is where it listens."""

    def __init__(
        self,
        replies: dict[str, str | list[str]] | None = None,
        *,
        lmtp: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "",
    ) -> None:
        self._replies: dict[str, list[str]] = {verb: [text] for verb, text in DEFAULTS.items()}
        for verb, said in (replies or {}).items():
            self._replies[verb] = [said] if isinstance(said, str) else list(said)
        self._lmtp = lmtp
        self._host = host
        self.port = port
        self._path = path
        self.sessions: list[Heard] = []
        self.changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()

    async def __aenter__(self) -> SmtpSink:
        loop = asyncio.get_running_loop()
        if self._path:
            self._server = await loop.create_unix_server(lambda: _Link(self), self._path)
        else:
            self._server = await loop.create_server(lambda: _Link(self), self._host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in list(self._links):
            link.transport.abort()

    @property
    def contents(self) -> list[bytes]:
        """Every content, of all sessions."""
        return [content for session in self.sessions for content in session.contents]

    @property
    def commands(self) -> list[str]:
        """Every command, of all sessions."""
        return [command for session in self.sessions for command in session.commands]

    def say(self, verb: str) -> str:
        """The next reply for a verb."""
        said = self._replies.get(verb) or ["502 5.5.1 what?"]
        return said.pop(0) if len(said) > 1 else said[0]

    def hang_up(self) -> None:
        """Close every connection now."""
        for link in list(self._links):
            link.transport.close()


class _Link(asyncio.Protocol):
    def __init__(self, sink: SmtpSink) -> None:
        self.sink = sink
        self.heard = Heard()
        self.buffer = b""
        self.in_data = False
        self.accepted = 0
        self.sender_ok = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.sink.sessions.append(self.heard)
        self.sink._links.add(self)
        self.say("GREETING")

    def connection_lost(self, exc: Exception | None) -> None:
        self.sink._links.discard(self)
        self.heard.ended = True
        self.sink.changed.set()

    def say(self, verb: str) -> str:
        text = self.sink.say(verb)
        if text == "close":
            self.transport.close()
        elif text == "abort":
            self.transport.abort()
        elif text.endswith(" close"):
            self.transport.write(text.removesuffix(" close").encode() + b"\r\n")
            self.transport.close()
        elif text != "silence":
            self.transport.write(text.encode("latin-1") + b"\r\n")
        return text

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while not self.transport.is_closing():
            if self.in_data:
                whole = b"\r\n" + self.buffer
                end = whole.find(b"\r\n.\r\n")
                if end < 0:
                    return
                self.heard.contents.append(whole[2 : end + 2])
                self.buffer = whole[end + 5 :]
                self.in_data = False
                for _ in range(self.accepted if self.sink._lmtp else 1):
                    self.say("DOT")
                continue
            line, newline, rest = self.buffer.partition(b"\r\n")
            if not newline:
                return
            self.buffer = rest
            self.command(line.decode("latin-1"))

    def command(self, line: str) -> None:
        self.heard.commands.append(line)
        verb = line.split(" ")[0].upper()
        if verb == "MAIL":
            self.accepted = 0
        if verb == "RCPT":
            address = line.partition("<")[2].partition(">")[0]
            key = f"RCPT:{address}"
            if key in self.sink._replies:
                verb = key
        if not self.sender_ok and verb[:4] in ("RCPT", "DATA"):
            self.transport.write(b"503 5.5.1 Error: need MAIL command\r\n")
            return
        text = self.say(verb)
        if verb == "MAIL":
            self.sender_ok = text.startswith("2")
        if verb.startswith("RCPT") and text.startswith("250"):
            self.accepted += 1
        if verb == "DATA" and text.startswith("354"):
            self.in_data = True
            self.sender_ok = False
        if verb == "QUIT":
            self.transport.close()
        self.sink.changed.set()

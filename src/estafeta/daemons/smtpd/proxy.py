"""The before-queue content filter: smtpd hands each message to an SMTP server and answers what that one answers.

Source: SMTPD_PROXY_README, postconf(5) smtpd_proxy_*; replies and log lines as observed from smtpd(8). Nothing is queued here: the
filter gives the mail to another smtpd. MAIL and RCPT go out as they came; EHLO, XFORWARD, DATA and QUIT are ours; no pipelining.
Invariants: the client hears 250 for a message only when the filter said 2xx to its final dot; trouble with the filter is 451, and
its details are for the log; a connection carries one message; one that is left within content is cut, not closed with QUIT.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Coroutine
from typing import IO, TYPE_CHECKING, Any

from estafeta.config.config import Config
from estafeta.daemons.smtpd.proxy_words import endpoint_of, event_line, is_code, xforward_lines
from estafeta.mail.text import to_bytes, to_text
from estafeta.system.unnamed_file import unnamed_file

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session

WRITE_ERROR = b"451 4.3.0 Error: queue file write error"
_LINE_START = re.compile(rb"\n\.")
_IN_MEMORY = 262144  # octets of a message that waits for its end (speed_adjust); more goes to a file
_PIECE = 65536
_MOST_REPLY = 1048576  # octets of one reply


class _Trouble(Exception):
    """The filter failed; logged already. Carries what the client is told."""

    def __init__(self, reply: bytes = WRITE_ERROR) -> None:
        super().__init__(reply)
        self.reply = reply


class ProxyFilter:
    """The filter of one smtpd service."""

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        """Raises ConfigError for a bad value. Names are looked up here, where that is still possible."""
        self.name = config.get("smtpd_proxy_filter")
        self.timeout_s = config.seconds("smtpd_proxy_timeout")
        self.helo_name = to_bytes(config.get("smtpd_proxy_ehlo"))
        options = config.words("smtpd_proxy_options")
        for word in options:
            if word.lower() != "speed_adjust":
                raise config.error("smtpd_proxy_options", f'"{word}" is not known (known: speed_adjust)')
        self.speed_adjust = "speed_adjust" in {word.lower() for word in options}
        self.path = ""
        self.addresses: list[tuple[str, int]] = []
        try:
            host, service = endpoint_of(self.name)
        except ValueError as error:
            raise config.error("smtpd_proxy_filter", str(error)) from None
        if not service:
            self.path = host
            return
        try:
            found = socket.getaddrinfo(host, service, type=socket.SOCK_STREAM)
        except OSError as error:
            warn(f"proxy filter {self.name}: {error.strerror or error}")
            found = []
        for address in (entry[4] for entry in found):
            pair = (str(address[0]), int(address[1]))
            if pair not in self.addresses:
                self.addresses.append(pair)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection; raises OSError, TimeoutError."""
        if self.path:
            return await asyncio.open_unix_connection(self.path)
        failure = OSError(0, "Name or service not known")
        for host, port in self.addresses:
            try:
                return await asyncio.open_connection(host, port)
            except OSError as error:
                failure = error
        raise failure


class ProxyTransaction:
    """One message on its way through the filter. Methods give b"" or the reply that refuses."""

    __slots__ = ("_at_line_start", "_closed", "_failed", "_held", "_in_content", "_lines", "_reader", "_session",
                 "_size", "_writer", "proxy")  # fmt: skip

    def __init__(self, proxy: ProxyFilter, session: Session, mail_line: bytes) -> None:
        self.proxy = proxy
        self._session = session
        self._lines = [mail_line]  # MAIL, and with speed_adjust the recipients
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._failed = b""  # what broke the connection: it stays broken
        self._in_content = self._closed = False
        self._at_line_start = True
        self._held: list[bytes] | IO[bytes] = []  # speed_adjust: the content so far
        self._size = 0

    async def open(self) -> bytes:
        """Connect, up to the answer to MAIL."""
        return b"" if self.proxy.speed_adjust else await self._done(self._open())

    async def recipient(self, line: bytes) -> bytes:
        """RCPT. A refusal of the filter's is about this recipient only."""
        if self.proxy.speed_adjust:
            self._lines.append(line)
            return b""
        return await self._done(self._command(line, "2"))

    async def data(self) -> bytes:
        """DATA; content may follow."""
        return b"" if self.proxy.speed_adjust else await self._done(self._begin_content())

    async def content(self, data: bytes) -> None:
        """Pass content on (wire form, not dot-stuffed, cut anywhere). ``end`` tells of failures."""
        if self._failed or not data:
            return
        if self.proxy.speed_adjust:
            self._hold(data)
        else:
            await self._done(self._send(self._stuffed(data)))

    async def end(self) -> bytes:
        """The content is complete: the filter's own reply, whatever it is, or ours when there is none."""
        if self._failed:
            return self._failed
        replies: list[bytes] = []
        if self.proxy.speed_adjust:
            return await self._done(self._all(replies)) or replies[-1]
        return await self._done(self._end_content(replies)) or replies[-1]

    def close(self) -> None:
        """Done with the filter. Safe to call twice."""
        self._closed = True  # what is still under way in _all must not go on: the content is gone
        writer, self._writer = self._writer, None
        if not isinstance(self._held, list):
            self._held.close()
        self._held = []
        if writer is None:
            return
        if self._in_content or self._failed:
            writer.transport.abort()
        else:
            writer.write(b"QUIT\r\n")
            writer.close()

    # -- the conversation ---------------------------------------------------------------------------------------------

    async def _done(self, work: Coroutine[Any, Any, object]) -> bytes:
        """Run ``work`` in a task of its own (time limits need one); what to refuse with, or b""."""
        session = self._session
        session.deadline += self.proxy.timeout_s
        if self._failed:
            work.close()
            return self._failed
        try:
            await session.service.context.loop.create_task(work)
        except _Trouble as trouble:
            return trouble.reply
        finally:
            session.deadline = session.service.now() + session.service.settings.timeout_s
        return b""

    def _broken(self, warning: str) -> _Trouble:
        """The connection is of no use any more."""
        if not self._session.closed:
            self._session.warning(warning)
        self._failed = WRITE_ERROR
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.transport.abort()
        return _Trouble()

    async def _open(self) -> None:
        proxy = self.proxy
        try:
            async with asyncio.timeout(proxy.timeout_s):
                self._reader, self._writer = await proxy.connect()
        except TimeoutError:
            raise self._broken(f"connect to proxy filter {proxy.name}: Connection timed out") from None
        except OSError as error:
            raise self._broken(f"connect to proxy filter {proxy.name}: {error.strerror or error}") from None
        try:
            await self._command(b"", "2")
            features = await self._command(b"EHLO " + proxy.helo_name, "2")
            for line in xforward_lines(self._session, features):
                await self._command(line, "2")
        except _Trouble:
            # What the filter says to smtpd is none of the client's business; what it says to MAIL is.
            self.close()
            self._failed = WRITE_ERROR
            raise _Trouble from None
        try:
            await self._command(self._lines[0], "2")
        except _Trouble as trouble:
            self.close()
            self._failed = trouble.reply
            raise

    async def _command(self, line: bytes, wanted: str) -> bytes:
        """Send a line (none: the greeting is waited for), get the reply; raises _Trouble if its first digit is not ``wanted``."""
        if line:
            await self._send(line + b"\r\n")
        reply = await self._reply()
        if reply[:1].decode("latin-1") != wanted:
            what = to_text(line) if line else "connection request"
            self._session.warning(f'proxy {self.proxy.name} rejected "{what}": "{to_text(reply)}"')
            raise _Trouble(reply if reply[:1] in b"45" else WRITE_ERROR)
        return reply

    async def _begin_content(self) -> None:
        await self._command(b"DATA", "3")
        self._in_content = True

    async def _end_content(self, replies: list[bytes]) -> None:
        await self._send(b".\r\n" if self._at_line_start else b"\r\n.\r\n")
        reply = await self._reply()
        self._in_content = False
        if reply[:1] not in b"245":
            raise self._broken(f"proxy {self.proxy.name} answered the end of the content with \"{to_text(reply)}\"")
        replies.append(reply)

    async def _all(self, replies: list[bytes]) -> None:
        """speed_adjust: the whole conversation at once."""
        await self._open()
        for line in self._lines[1:]:
            await self._command(line, "2")
        await self._begin_content()
        held = self._held
        if isinstance(held, list):
            for data in held:
                await self._send(self._stuffed(data))
        else:
            held.seek(0)
            while data := b"" if self._closed else held.read(_PIECE):
                await self._send(self._stuffed(data))
        await self._end_content(replies)

    def _hold(self, data: bytes) -> None:
        self._size += len(data)
        try:
            if isinstance(self._held, list):
                self._held.append(data)
                if self._size > _IN_MEMORY:
                    file = unnamed_file("incoming")
                    file.writelines(self._held)
                    self._held = file
            else:
                self._held.write(data)
        except OSError as error:
            self._session.warning(f"proxy filter {self.proxy.name}: cannot keep the message: {error.strerror}")
            self._failed = WRITE_ERROR

    def _stuffed(self, data: bytes) -> bytes:
        if self._at_line_start and data[:1] == b".":
            data = b"." + data
        self._at_line_start = data[-1:] == b"\n"
        return _LINE_START.sub(b"\n..", data) if b"\n." in data else data

    async def _send(self, data: bytes) -> None:
        if self._writer is None or self._closed:
            raise _Trouble(self._failed or WRITE_ERROR)
        try:
            self._writer.write(data)
            async with asyncio.timeout(self.proxy.timeout_s):
                await self._writer.drain()
        except TimeoutError:
            raise self._broken(f"timeout talking to proxy {self.proxy.name}") from None
        except OSError:
            raise self._broken(f"lost connection with proxy {self.proxy.name}") from None

    async def _reply(self) -> bytes:
        """A whole reply, its lines joined by CRLF."""
        reader = self._reader
        if reader is None:
            raise _Trouble
        lines: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.proxy.timeout_s):
                while size <= _MOST_REPLY:
                    line = (await reader.readuntil(b"\n")).rstrip(b"\r\n")
                    size += len(line)
                    limit = self._session.service.settings.line_length_limit
                    if len(line) > limit:
                        start = to_text(line[:30])
                        self._session.warning(f"{self.proxy.name}: response longer than {limit}: {start}...")
                        line = line[:limit]
                    if not is_code(line):
                        self._session.warning(f"received garbage from proxy {self.proxy.name}: {to_text(line[:100])}")
                        continue
                    lines.append(line)
                    if line[3:4] != b"-":
                        return b"\r\n".join(lines)
        except TimeoutError:
            raise self._broken(f"timeout talking to proxy {self.proxy.name}") from None
        except (OSError, EOFError):
            raise self._broken(f"lost connection with proxy {self.proxy.name}") from None
        except asyncio.LimitOverrunError:
            pass
        raise self._broken(f"reply of proxy {self.proxy.name} is too long")


def log_end(session: Session, reply: bytes, recipient: bytes) -> None:
    """The line about what became of the message."""
    what = "proxy-accept" if reply[:1] == b"2" else "proxy-reject"
    session.info(event_line(session, what, to_text(reply), recipient))

"""``sendmail -bs``: SMTP on standard input and output, for one local user.

Source: sendmail(1), smtpd(8) (stand-alone mode), RFC 5321. A reasonable subset with smtpd's replies: no TLS, no AUTH, no BDAT,
no access control; NOTIFY and ORCPT are not kept by recipient (the first NOTIFY counts for all). Messages go the way of all local
submissions, so 250 means that the message is safe in ``maildrop/``.
"""

from __future__ import annotations

import os
import time
from typing import BinaryIO

from estafeta.config.config import Config
from estafeta.mail.address import AddressError, parse_path
from estafeta.mail.maildrop import Submission, encode
from estafeta.spool.maildrop import SubmitError, submit

LINE_LIMIT = 2048  # octets of a command
_NOTIFY = {b"NEVER": 1, b"SUCCESS": 2, b"FAILURE": 4, b"DELAY": 8}


class StandardInputSession:
    """One dialog."""

    def __init__(self, config: Config, login: str, source: BinaryIO, sink: BinaryIO) -> None:
        self._config = config
        self._login = login
        self._source = source
        self._sink = sink
        self._hostname = config.get("myhostname")
        self._limit = config.size("message_size_limit")
        self._message: Submission | None = None

    def run(self) -> int:
        """Serve until QUIT or the end of input; exit status 0."""
        self._say(f"220 {self._config.get('smtpd_banner')}")
        while True:
            line = self._source.readline(LINE_LIMIT)
            if not line:
                return 0
            words = line.strip().split(None, 1)
            verb = words[0].upper() if words else b""
            rest = words[1] if len(words) > 1 else b""
            if verb == b"QUIT":
                self._say("221 2.0.0 Bye")
                return 0
            self._command(verb, rest)

    def _say(self, *lines: str) -> None:
        head = "".join(f"{line[:3]}-{line[4:]}\r\n" for line in lines[:-1])
        self._sink.write((head + lines[-1] + "\r\n").encode("utf-8", "surrogateescape"))
        self._sink.flush()

    def _command(self, verb: bytes, rest: bytes) -> None:
        if verb in (b"HELO", b"EHLO"):
            self._message = None
            if not rest:
                self._say(f"501 Syntax: {verb.decode()} hostname")
            elif verb == b"HELO":
                self._say(f"250 {self._hostname}")
            else:
                words = ("PIPELINING", f"SIZE {self._limit}", "VRFY", "ENHANCEDSTATUSCODES", "8BITMIME", "DSN", "SMTPUTF8")
                self._say(f"250 {self._hostname}", *(f"250 {word}" for word in words))
        elif verb == b"MAIL":
            self._mail(rest)
        elif verb == b"RCPT":
            self._rcpt(rest)
        elif verb == b"DATA":
            self._data()
        elif verb == b"RSET":
            self._message = None
            self._say("250 2.0.0 Ok")
        elif verb == b"NOOP":
            self._say("250 2.0.0 Ok")
        elif verb == b"VRFY":
            self._say("252 2.0.0 " + rest.decode("utf-8", "surrogateescape") if rest else "501 5.5.4 Syntax: VRFY address")
        else:
            self._say("500 5.5.2 Error: command not recognized")

    def _mail(self, rest: bytes) -> None:
        if self._message is not None:
            self._say("503 5.5.1 Error: nested MAIL command")
        elif rest[:5].upper() != b"FROM:":
            self._say("501 5.5.4 Syntax: MAIL FROM:<address>")
        else:
            try:
                path = parse_path(rest[5:])
                message = Submission(path.address, [])
                self._mail_parameters(message, path.parameters)
            except AddressError:
                self._say("501 5.1.7 Bad sender address syntax")
            except ValueError as error:
                self._say(str(error))
            else:
                self._message = message
                self._say("250 2.1.0 Ok")

    def _mail_parameters(self, message: Submission, parameters: bytes) -> None:
        for word in parameters.split():
            name, _, value = word.upper().partition(b"=")
            if name == b"SIZE" and value.isdigit():
                if self._limit and int(value[:15]) > self._limit:
                    raise ValueError("552 5.3.4 Message size exceeds fixed limit")
            elif name == b"BODY" and value in (b"7BIT", b"8BITMIME"):
                message.body = value.decode()
            elif name == b"RET" and value in (b"FULL", b"HDRS"):
                message.ret = value.decode()
            elif name == b"ENVID" and value:
                message.envid = word[6:]
            elif name != b"SMTPUTF8":
                raise ValueError("555 5.5.4 Unsupported option: " + word.decode("utf-8", "replace"))

    def _rcpt(self, rest: bytes) -> None:
        if self._message is None:
            self._say("503 5.5.1 Error: need MAIL command")
        elif rest[:3].upper() != b"TO:":
            self._say("501 5.5.4 Syntax: RCPT TO:<address>")
        else:
            try:
                path = parse_path(rest[3:])
            except AddressError:
                self._say("501 5.1.3 Bad recipient address syntax")
                return
            if not path.address:
                self._say("501 5.1.3 Bad recipient address syntax")
                return
            for word in path.parameters.upper().split():
                name, _, value = word.partition(b"=")
                if name == b"NOTIFY" and not self._message.notify:
                    self._message.notify = sum(_NOTIFY.get(item, 0) for item in set(value.split(b",")))
            self._message.recipients.append(path.address)
            self._say("250 2.1.5 Ok")

    def _data(self) -> None:
        message = self._message
        if message is None or not message.recipients:
            self._say("503 5.5.1 Error: need RCPT command")
            return
        self._say("354 End data with <CR><LF>.<CR><LF>")
        self._message = None
        lines: list[bytes] = []
        size = 0
        while True:
            line = self._source.readline()
            if not line:
                return  # cut off: not a message
            line = line.rstrip(b"\r\n")
            if line == b".":
                break
            line = line[1:] if line.startswith(b".") else line
            size += len(line) + 2
            if not self._limit or size <= self._limit:
                lines.append(line)
        if self._limit and size > self._limit:
            self._say("552 5.3.4 Error: message file too big")
            return
        message.content = b"".join(line + b"\r\n" for line in lines)
        message.arrived_at = time.time()
        message.uid = os.getuid()
        try:
            name = submit(self._config.get("queue_directory"), encode(message))
        except SubmitError as error:
            code = "451 4.3.0" if error.temporary else "550 5.7.1"
            self._say(f"{code} Error: {error}")
        else:
            self._say(f"250 2.0.0 Ok: queued as {name}")

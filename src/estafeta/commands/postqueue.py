"""postqueue(1): list and flush the queue, for every user.

Source: postqueue(1). Talks to showq over its text socket (see ``daemons.showq``); while the mail system is down, whoever may
read the queue directory reads it directly. Exit status 69 for every failure but 77 when the user may not.
"""

from __future__ import annotations

import io
import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence

from estafeta.config.config import Config, load_config
from estafeta.config.errors import ConfigError

_USAGE = "usage: postqueue -f | postqueue -i queueid | postqueue -j | postqueue -p | postqueue -s site"
EX_UNAVAILABLE = 69
EX_NOPERM = 77
TIMEOUT_S = 600.0
_LABEL = r"[A-Za-z0-9_\x80-\U0010ffff](?:[A-Za-z0-9_\x80-\U0010ffff-]*[A-Za-z0-9_\x80-\U0010ffff])?"
_DESTINATION = re.compile(rf"{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Za-z:.]+\]")


class _Failed(Exception):
    """Ends the command with ``status`` after one line on standard error."""

    def __init__(self, text: str, status: int = EX_UNAVAILABLE) -> None:
        super().__init__(text)
        self.status = status


class _Down(Exception):
    """showq does not answer; the text is the reason."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run postqueue with ``argv`` (without the program's name); the exit status."""
    try:
        mode, argument, directory = _read_options(list(sys.argv[1:] if argv is None else argv))
        config = load_config(directory)
        if mode in ("p", "j"):
            return _list(config, as_json=mode == "j")
        if mode == "i" and re.fullmatch(r"[0-9A-Za-z]+", argument) is None:
            raise _Failed(f'Cannot flush queue ID - invalid name: "{argument}"')
        if mode == "s" and _DESTINATION.fullmatch(argument) is None:
            raise _Failed(f'Cannot flush mail queue - invalid destination: "{argument}"')
        verb = {"f": "flush", "i": "flush_one", "s": "flush_site"}[mode]
        return _flush(config, f"{verb} {argument}".rstrip())
    except _Failed as error:
        sys.stderr.write(f"postqueue: fatal: {error}\n")
        return error.status
    except ConfigError as error:
        sys.stderr.write(f"postqueue: fatal: {error}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _read_options(arguments: list[str]) -> tuple[str, str, str | None]:
    """(mode letter, its argument, configuration directory)."""
    import getopt

    try:
        options, rest = getopt.getopt(arguments, "c:fi:jps:v")
    except getopt.GetoptError as error:
        sys.stderr.write(f"postqueue: {error}\n")
        raise _Failed(_USAGE) from None
    mode = argument = ""
    directory = None
    for name, value in options:
        letter = name[1]
        if letter == "c":
            directory = value
        elif letter != "v":
            if mode:
                raise _Failed(_USAGE)
            mode, argument = letter, value
    if not mode or rest or len(argument.split()) > 1 or (mode in "is" and not argument.strip()):
        raise _Failed(_USAGE)
    return mode, argument, directory


def _ask(config: Config, request: str) -> Iterator[str]:
    """The lines of showq's answer without the last; raises _Down or _Failed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(TIMEOUT_S)
        try:
            link.connect(os.path.join(config.get("queue_directory"), "public", "showq"))
        except OSError as error:
            raise _Down(error.strerror or str(error)) from None
        last = ""
        try:
            link.sendall(request.encode("utf-8", "surrogateescape") + b"\n")
            with link.makefile("r", encoding="utf-8", errors="replace", newline="\n") as stream:
                for line in stream:
                    if line.startswith("{"):
                        yield line
                    else:
                        last = line.rstrip("\n")
        except OSError as error:
            raise _Failed(f"showq service: {error.strerror or error}") from None
    verdict, _, text = last.partition(" ")
    if verdict == "DENIED":
        raise _Failed(text, EX_NOPERM)
    if verdict != "OK":
        raise _Failed(text or "malformed showq server response")


def _list(config: Config, *, as_json: bool) -> int:
    lines = _ask(config, "list")
    try:
        first = next(lines, "")
    except _Down as error:
        lines, first = _directly(config, str(error)), ""
    everything = _chain(first, lines)
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(encoding="utf-8", errors="replace")
    if as_json:
        for line in everything:
            out.write(line)
    else:
        from estafeta.mail.queue_listing import ListingError, parse_line, table

        try:
            wide = config.bool("enable_long_queue_ids")
            for piece in table((parse_line(line) for line in everything), wide=wide):
                out.write(piece)
        except ListingError as error:
            raise _Failed(f"malformed showq server response: {error}") from None
    out.flush()
    return 0


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _directly(config: Config, reason: str) -> Iterator[str]:
    """The listing without showq, for those who can read the queue."""
    directory = config.get("queue_directory")
    if not os.access(os.path.join(directory, "deferred"), os.R_OK | os.X_OK):
        raise _Failed("Queue report unavailable - mail system is down")
    sys.stderr.write(
        "postqueue: warning: Mail system is down -- accessing queue directly "
        f"(Connect to the Postfix showq service: {reason})\n"
    )
    from estafeta.mail.queue_listing import json_line
    from estafeta.spool.listing import list_messages

    for message in list_messages(directory, (), config.get("empty_address_recipient")):
        yield json_line(message)


def _flush(config: Config, request: str) -> int:
    try:
        for _ in _ask(config, request):
            pass
    except _Down:
        raise _Failed("Cannot flush mail queue - mail system is down") from None
    return 0


if __name__ == "__main__":
    sys.exit(main())

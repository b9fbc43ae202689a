"""postcat(1): show queue files.

Source: postcat(1). The layout is Postfix's (envelope records, message contents, a line that says where they end); the records
are those that our queue files have. Files of ``maildrop/`` are understood as well.
"""

from __future__ import annotations

import getopt
import os
import sys
import time
from collections.abc import Iterator, Sequence

from estafeta.config.config import load_config
from estafeta.config.errors import ConfigError
from estafeta.ipc.messages import Envelope, Recipient
from estafeta.mail import maildrop
from estafeta.mail.queue_id import is_queue_id
from estafeta.mail.text import to_text
from estafeta.spool import maildrop as drop
from estafeta.spool import scan
from estafeta.spool.content import ContentReader

_USAGE = "usage: postcat [-bdehnoqrv] [-c config_dir] [-s offset] [files...]"


class _Failed(Exception):
    """Ends the command with one line on standard error."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run postcat with ``argv`` (without the program's name); the exit status."""
    try:
        options, names = getopt.getopt(list(sys.argv[1:] if argv is None else argv), "bc:dehnoqrs:v")
    except getopt.GetoptError as error:
        sys.stderr.write(f"postcat: {error}\npostcat: fatal: {_USAGE}\n")
        return 1
    given = {name[1]: value for name, value in options}
    parts = {letter for letter in "ebh" if letter in given} or set("ebh")
    status = 0
    try:
        directory = load_config(given.get("c")).get("queue_directory")
        for name in names or ["/dev/stdin"]:
            if "q" in given:
                _queued(directory, name, parts)
            else:
                status |= _file(name, parts)
        sys.stdout.flush()
    except (_Failed, ConfigError) as error:
        sys.stdout.flush()
        sys.stderr.write(f"postcat: fatal: {error}\n")
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return status


def _queued(directory: str, name: str, parts: set[str]) -> None:
    if is_queue_id(name):
        found = scan.find_message(directory, name)
        if found is not None:
            _message(directory, found, parts, f"{found.queue}/{name}")
            return
        if name in drop.names(directory):
            _submission(drop.read(directory, name), parts, f"maildrop/{name}")
            return
    raise _Failed(f"open queue file {name}: No such file or directory")


def _file(path: str, parts: set[str]) -> int:
    shown = "stdin" if path == "/dev/stdin" else path
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except OSError as error:
        raise _Failed(f"open {path}: {error.strerror}") from None
    try:
        _submission(maildrop.decode(data), parts, shown)
        return 0
    except maildrop.MaildropError:
        pass
    top, base = os.path.split(os.path.abspath(path)) if path != "/dev/stdin" else ("", "")
    messages = scan.list_file(top, base) if top else []
    if not messages:
        sys.stderr.write(f"postcat: warning: {shown}: input is not a valid queue file\n")
        return 0
    for queued in messages:
        _message(top, queued, parts, shown)
    return 0


def _message(directory: str, queued: scan.Queued, parts: set[str], name: str) -> None:
    reader = ContentReader(directory)
    try:
        content = reader.read(queued.place)
    except OSError as error:
        raise _Failed(f"{name}: {error}") from None
    finally:
        reader.close()
    _show(_records(queued.envelope, queued.done), content, parts, name)


def _submission(found: maildrop.Submission, parts: set[str], name: str) -> None:
    envelope = Envelope(
        "", found.arrived_at, found.sender, [Recipient(address, b"", found.notify) for address in found.recipients],
        envid=found.envid, ret=found.ret, rewrite_context=found.context, sender_original=found.full_name,
    )  # fmt: skip
    _show(_records(envelope, set()), found.content, parts, name)


def _records(envelope: Envelope, done: set[int]) -> Iterator[str]:
    if envelope.size:
        yield f"message_size: {envelope.size:15d} {len(envelope.recipients):15d} {envelope.size:15d}"
    yield f"message_arrival_time: {_time(envelope.arrived_at)}"
    attributes = {
        "envelope_id": to_text(envelope.envid), "ret_flags": {"FULL": "1", "HDRS": "2"}.get(envelope.ret, ""),
        "rewrite_context": envelope.rewrite_context, "content_filter": envelope.content_filter,
        "log_client_name": envelope.client_name, "log_client_address": envelope.client_address,
        "log_client_port": envelope.client_port, "log_helo_name": envelope.helo_name,
        "log_protocol_name": envelope.protocol, "sasl_method": envelope.sasl_method,
        "sasl_username": envelope.sasl_username, "sasl_sender": envelope.sasl_sender,
    }  # fmt: skip
    for name, value in attributes.items():
        if value:
            yield f"named_attribute: {name}={value}"
    if envelope.sender_original:
        yield f"sender_fullname: {to_text(envelope.sender_original)}"
    yield f"sender: {to_text(envelope.sender)}"
    if envelope.next_try_at:
        yield f"deferred_until: {_time(envelope.next_try_at)}"
    for index, recipient in enumerate(envelope.recipients):
        if recipient.orcpt:
            yield f"named_attribute: dsn_orig_rcpt={to_text(recipient.orcpt)}"
        if recipient.notify:
            yield f"named_attribute: notify_flags={recipient.notify}"
        if recipient.original:
            yield f"original_recipient: {to_text(recipient.original)}"
        yield f"{'done_recipient' if index in done else 'recipient'}: {to_text(recipient.address)}"


def _time(when: float) -> str:
    return time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(when))


def _show(records: Iterator[str], content: bytes, parts: set[str], name: str) -> None:
    out = sys.stdout.buffer
    marks = len(parts) == 3 or "e" in parts
    if "e" in parts:
        out.write(f"*** ENVELOPE RECORDS {name} ***\n".encode("utf-8", "surrogateescape"))
        for record in records:
            out.write(record.encode("utf-8", "surrogateescape") + b"\n")
    if parts & {"h", "b"}:
        if marks:
            out.write(f"*** MESSAGE CONTENTS {name} ***\n".encode("utf-8", "surrogateescape"))
        text = content.replace(b"\r\n", b"\n")
        cut = 0 if text.startswith(b"\n") else text.find(b"\n\n") + 1 or len(text)
        if "h" in parts:
            out.write(text[:cut])
        if "b" in parts:
            out.write(text[cut:])
    if marks:
        out.write(f"*** HEADER EXTRACTED {name} ***\n*** MESSAGE FILE END {name} ***\n".encode("utf-8", "surrogateescape"))
    out.flush()


if __name__ == "__main__":
    sys.exit(main())

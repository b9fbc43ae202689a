"""How the queue is shown: the table of mailq and the JSON lines of ``postqueue -j``.

Source: postqueue(1), and Postfix's own output. Pure; both ends of showq's socket use it. Invariant: ``parse_line`` returns or
raises ListingError; ``parse_line(json_line(m)) == m`` for text without lone surrogates.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

EMPTY = "Mail queue is empty"


class ListingError(ValueError):
    """The line is no listing entry."""


@dataclass(slots=True)
class Listed:
    """One message. ``recipients``: (address, reason of the delay or empty) of those that are left."""

    queue_name: str
    queue_id: str
    arrival_time: int  # Unix time
    message_size: int  # octets, LF line ends
    sender: str
    recipients: list[tuple[str, str]] = field(default_factory=list)
    forced_expire: bool = False


def json_line(message: Listed) -> str:
    """One JSON object and a newline."""
    recipients = [{"address": a, "delay_reason": r} if r else {"address": a} for a, r in message.recipients]
    text = json.dumps(
        {
            "queue_name": message.queue_name,
            "queue_id": message.queue_id,
            "arrival_time": message.arrival_time,
            "message_size": message.message_size,
            "forced_expire": message.forced_expire,
            "sender": message.sender,
            "recipients": recipients,
        },
        ensure_ascii=False,
    )
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"


def parse_line(line: str) -> Listed:
    """The message of a JSON line; raises ListingError."""
    try:
        found = json.loads(line)
        return Listed(
            str(found["queue_name"]),
            str(found["queue_id"]),
            int(found["arrival_time"]),
            int(found["message_size"]),
            str(found["sender"]),
            [(str(item["address"]), str(item.get("delay_reason", ""))) for item in found["recipients"]],
            bool(found["forced_expire"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ListingError(f"no listing entry: {error}") from None


def table(messages: Iterable[Listed], *, wide: bool = False) -> Iterator[str]:
    """The pieces of mailq's output, each with its line ends; ``wide``: with room for long queue ids."""
    count = total = 0
    for message in messages:
        if count == 0:
            yield _heading(wide)
        else:
            yield "\n"
        count += 1
        total += message.message_size
        yield _entry(message, wide)
    if count == 0:
        yield EMPTY + "\n"
    else:
        yield f"\n-- {total // 1024} Kbytes in {count} Request{'' if count == 1 else 's'}.\n"


def _heading(wide: bool) -> str:
    if wide:
        return "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n"
    return "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n"


def _entry(message: Listed, wide: bool) -> str:
    flag = {"active": "*", "hold": "!"}.get(message.queue_name, "#" if message.forced_expire else " ")
    when = _when(message.arrival_time)
    named = message.queue_id + flag
    if wide:
        lines = [f"{named:<17s} {message.message_size:8d} {when} {message.sender}"]
        indent = 47
    else:
        lines = [f"{named:<12s}{message.message_size:7d} {when}  {message.sender}"]
        indent = 41
    reason = ""
    for address, why in message.recipients:
        if why and why != reason:
            reason = why
            lines.append(f"{'(' + why + ')':>78s}")
        lines.append(" " * indent + address)
    return "\n".join(lines) + "\n"


def _when(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%a %b %e %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC).strftime("%a %b %e %H:%M:%S")

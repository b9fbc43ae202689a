"""The numbers at the end of a ``disconnect from`` line."""

from __future__ import annotations

from collections import Counter

_ORDER = ("helo", "ehlo", "xclient", "xforward", "starttls", "auth", "mail", "rcpt", "data", "bdat", "rset", "noop", "vrfy", "etrn",
          "quit", "unknown")  # fmt: skip


def statistics(counts: Counter[str]) -> str:
    """``verb=good/tried`` for what was tried; ``counts`` has verbs and ``verb/ok``."""
    total = good_total = 0
    text = ""
    for verb in _ORDER:
        tried = counts[verb]
        if tried:
            good = counts[verb + "/ok"]
            total += tried
            good_total += good
            text += f" {verb}={good}" if good == tried else f" {verb}={good}/{tried}"
    if not total:
        return f"{text} commands=0/0"
    return f"{text} commands={good_total}" if total == good_total else f"{text} commands={good_total}/{total}"

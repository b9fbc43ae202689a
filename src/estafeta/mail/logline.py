"""Log lines that programs read: one function each.

Source: what Postfix 3.7 writes, as pflogsumm and fail2ban parse it.
"""

from __future__ import annotations

import re

from estafeta.mail.address import quote_address
from estafeta.mail.text import to_text

_PLAIN = re.compile(rb"[A-Za-z0-9._+=~@-]*")


def shown(address: bytes) -> str:
    """An address as it is written in a message: quoted where it has to be (info_log_addr_form = external)."""
    return to_text(address if _PLAIN.fullmatch(address) else quote_address(address))


def format_delay(seconds: float) -> str:
    """Two significant digits, nothing below a hundredth of a second: ``0``, ``0.02``, ``1.2``, ``340``."""
    if seconds < 0.005:
        return "0"
    if seconds >= 10:
        return str(round(seconds))
    if seconds >= 1:
        return f"{seconds:.1f}".removesuffix(".0")
    return f"{seconds:.2f}".rstrip("0").rstrip(".")


def queue_active(queue_id: str, sender: bytes, size: int, recipients: int) -> str:
    """qmgr: a message enters the active queue."""
    return f"{queue_id}: from=<{shown(sender)}>, size={size}, nrcpt={recipients} (queue active)"


def delivery(
    queue_id: str,
    recipient: bytes,
    original: bytes,
    relay: str,
    delays: tuple[float, float, float, float],
    dsn: str,
    status: str,
    text: str,
    uses: int = 1,
) -> str:
    """A delivery agent: what became of one recipient."""
    to = shown(recipient)
    origin = f" orig_to=<{shown(original)}>," if original and original != recipient else ""
    use = f" conn_use={uses}," if uses > 1 else ""
    before, active, connect, transfer = delays
    return (
        f"{queue_id}: to=<{to}>,{origin} relay={relay},{use} delay={format_delay(before + active + connect + transfer)}, "
        f"delays={format_delay(before)}/{format_delay(active)}/{format_delay(connect)}/{format_delay(transfer)}, "
        f"dsn={dsn}, status={status} ({text})"
    )

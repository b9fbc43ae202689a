"""nis: tables on a host without a NIS domain, which is nearly every host: they hold nothing.

Source: what Postfix does when no NIS domain name is set; its default alias_maps may name ``nis:mail.aliases``.
On a host that has a NIS domain the type is refused as unsupported (the client comes with the other network tables).
"""

from __future__ import annotations

from estafeta.tables.table import OpenOptions, TableError

_DOMAIN_FILE = "/proc/sys/kernel/domainname"


def nis_domain() -> str:
    """The host's NIS domain name; empty if there is none."""
    try:
        with open(_DOMAIN_FILE, encoding="ascii", errors="replace") as stream:
            name = stream.read().strip()
    except OSError:
        return ""
    return "" if name == "(none)" else name


class EmptyNisTable:
    """Finds nothing; says once why."""

    is_pattern = False

    def __init__(self, name: str, options: OpenOptions, domain: str | None = None) -> None:
        """Raises TableError on a host with a NIS domain."""
        if nis_domain() if domain is None else domain:
            raise TableError("unsupported dictionary type: nis")
        self.name = f"nis:{name}"
        options.warn("NIS domain name not set - NIS lookups disabled")

    async def lookup(self, key: str) -> str | None:
        """Nothing."""
        return None

    def close(self) -> None:
        """Nothing to close."""

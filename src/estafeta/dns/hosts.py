"""The hosts file as two dictionaries: name to addresses, address to its first name.

Source: hosts(5), and nsswitch ``hosts: files dns`` (the file goes first). Bad lines are passed over, as glibc
does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class HostsFile:
    """Names are lower case without a final dot; addresses are numeric in canonical form."""

    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def lookup(self, name: str) -> tuple[str, ...]:
        """Return the addresses of ``name`` in file order, () when the file does not have it."""
        return self.addresses.get(name.lower().removesuffix("."), ())

    def reverse(self, address: str) -> str | None:
        """Return the official name of a canonical numeric ``address``."""
        return self.names.get(address)


def parse_hosts(text: str) -> HostsFile:
    """Parse the text of a hosts file; never fails."""
    addresses: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 2:
            continue
        try:
            address = str(ip_address(words[0]))
        except ValueError:
            continue
        names.setdefault(address, words[1])
        for name in words[1:]:
            known = addresses.setdefault(name.lower().removesuffix("."), [])
            if address not in known:
                known.append(address)
    return HostsFile({name: tuple(found) for name, found in addresses.items()}, names)

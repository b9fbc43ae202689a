"""Facts about this machine that are defaults of parameters: host name, domain, trusted networks.

Source: postconf(5), myhostname, mydomain, mynetworks, mynetworks_style, inet_interfaces, inet_protocols.
The modules that look at network interfaces are imported when first asked for: most commands never need them.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class InterfaceAddress(NamedTuple):
    """One address of a local network interface: packed `address` (4 or 16 bytes) and its `prefix` length in bits."""

    address: bytes
    prefix: int
    interface: str


def host_name() -> str:
    """The machine's own name, as gethostname(2) has it."""
    return os.uname().nodename


def interface_addresses() -> list[InterfaceAddress]:
    """The addresses of all interfaces that are up, IPv4 first, by getifaddrs(3). Raises OSError."""
    import ctypes

    class SockAddr(ctypes.Structure):
        _fields_ = [("family", ctypes.c_ushort), ("data", ctypes.c_ubyte * 26)]

    class IfAddrs(ctypes.Structure):
        pass

    IfAddrs._fields_ = [
        ("next", ctypes.POINTER(IfAddrs)),
        ("name", ctypes.c_char_p),
        ("flags", ctypes.c_uint),
        ("addr", ctypes.POINTER(SockAddr)),
        ("netmask", ctypes.POINTER(SockAddr)),
    ]
    libc = ctypes.CDLL(None, use_errno=True)
    head = ctypes.POINTER(IfAddrs)()
    if libc.getifaddrs(ctypes.byref(head)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    found: list[InterfaceAddress] = []
    try:
        node = head
        while node:
            entry = node.contents
            if entry.addr and entry.netmask and entry.flags & 1:
                # Linux: AF_INET is 2 (the address after the 2 bytes of port), AF_INET6 is 10 (after port and flow).
                where = {2: (2, 4), 10: (6, 16)}.get(entry.addr.contents.family)
                if where is not None:
                    offset, size = where
                    address = bytes(entry.addr.contents.data[offset : offset + size])
                    mask = bytes(entry.netmask.contents.data[offset : offset + size])
                    prefix = int.from_bytes(mask, "big").bit_count()
                    found.append(InterfaceAddress(address, prefix, (entry.name or b"").decode("latin-1")))
            node = entry.next
    finally:
        libc.freeifaddrs(head)
    return sorted(dict.fromkeys(found), key=lambda item: len(item.address))


def _network(address: bytes, prefix: int) -> bytes:
    bits = len(address) * 8
    number = int.from_bytes(address, "big") >> (bits - prefix) << (bits - prefix)
    return number.to_bytes(len(address), "big")


def _class_prefix(address: bytes) -> int:
    first = address[0]
    if first < 128:
        return 8
    return 16 if first < 192 else 24


def trusted_networks(style: str, addresses: list[InterfaceAddress]) -> str:
    """The default of mynetworks for a `style` ("host", "subnet" or "class") and the addresses mail arrives on."""
    import socket

    networks: dict[str, None] = {}
    for item in addresses:
        if len(item.address) == 4:
            prefix = {"host": 32, "class": _class_prefix(item.address)}.get(style, item.prefix)
            text = socket.inet_ntop(socket.AF_INET, _network(item.address, prefix))
            networks[f"{text}/{prefix}"] = None
        else:
            prefix = 128 if style == "host" else item.prefix
            text = socket.inet_ntop(socket.AF_INET6, _network(item.address, prefix))
            networks[f"[{text}]/{prefix}"] = None
    return " ".join(networks)


def addresses_of(inet_interfaces: list[str], inet_protocols: list[str]) -> list[InterfaceAddress]:
    """The local addresses that mail is received on. Names are looked up; unknown ones give nothing.

    A machine whose interfaces cannot be read has only its loopback addresses.
    """
    import socket

    try:
        everything = interface_addresses()
    except OSError:
        everything = [InterfaceAddress(b"\x7f\0\0\1", 8, "lo")]
    words = [word.lower() for word in inet_interfaces] or ["all"]
    protocols = {word.lower() for word in inet_protocols} or {"all"}
    sizes = {size for name, size in (("ipv4", 4), ("ipv6", 16)) if name in protocols or "all" in protocols}
    wanted: list[InterfaceAddress] = []
    for word in words:
        if word == "all":
            chosen = everything
        elif word == "loopback-only":
            chosen = [item for item in everything if item.address[:1] == b"\x7f" or item.address == b"\0" * 15 + b"\1"]
        else:
            packed = set()
            try:
                for family, _, _, _, address in socket.getaddrinfo(word.strip("[]"), None):
                    if family in (socket.AF_INET, socket.AF_INET6):
                        packed.add(socket.inet_pton(family, str(address[0]).partition("%")[0]))
            except (OSError, UnicodeError):
                continue
            chosen = [item for item in everything if item.address in packed]
        wanted += [item for item in chosen if item not in wanted]
    return [item for item in wanted if len(item.address) in sizes]

"""The listening sockets of every service: internet ports and unix sockets in ``public/`` and ``private/``.

Source: master(5). A fifo service gets a unix socket: both ends are ours.
"""

from __future__ import annotations

import os
import socket
import stat

from estafeta.config.config import Config
from estafeta.config.errors import ConfigError
from estafeta.config.master_cf import MasterService

BACKLOG = 4096
# Every local user may talk to these, and they check who it is; the rest of public/ is for root and mail_owner (ADR 0004).
FOR_EVERYBODY = frozenset(("pickup", "showq", "postlog"))


def split_endpoint(name: str) -> tuple[str, str]:
    """``host:port``, ``[v6]:port`` or ``port``, as (host or empty, port or service name)."""
    if name.startswith("["):
        host, bracket, rest = name[1:].partition("]")
        if bracket and rest.startswith(":"):
            return host, rest[1:]
        raise ConfigError(f"master.cf: bad service name: {name}")
    host, _, port = name.rpartition(":")
    return host, port


def _families(config: Config) -> list[socket.AddressFamily]:
    families = []
    for word in config.words("inet_protocols"):
        if word in ("all", "ipv4"):
            families.append(socket.AF_INET)
        if word in ("all", "ipv6") and socket.has_ipv6 and os.path.exists("/proc/net/if_inet6"):
            families.append(socket.AF_INET6)
    return families or [socket.AF_INET]


def _hosts(config: Config, host: str) -> list[str]:
    if host:
        return [host]
    names = config.words("inet_interfaces")
    if not names or "all" in names:
        return ["0.0.0.0", "::"]
    if "loopback-only" in names:
        return ["127.0.0.1", "::1"]
    return names


def inet_addresses(config: Config, name: str) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """Where an inet service listens; raises ConfigError."""
    host, port_name = split_endpoint(name)
    try:
        port = int(port_name) if port_name.isdigit() else socket.getservbyname(port_name, "tcp")
    except OSError:
        raise ConfigError(f"master.cf: unknown service or port: {port_name}") from None
    families = _families(config)
    found: list[tuple[socket.AddressFamily, tuple[str, int]]] = []
    for interface in _hosts(config, host):
        try:
            infos = socket.getaddrinfo(interface.strip("[]"), port, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)
        except OSError as error:
            what = "" if host else "parameter inet_interfaces: "
            raise ConfigError(f"{what}host not found: {interface}: {error.strerror}") from None
        for family, _, _, _, address in infos:
            entry = (socket.AddressFamily(family), (str(address[0]), int(address[1])))
            if family in families and entry not in found:
                found.append(entry)
    return found


def open_inet(config: Config, name: str) -> list[socket.socket]:
    """Bound, listening sockets for an inet service; raises ConfigError or OSError with the address in its text."""
    listeners: list[socket.socket] = []
    for family, address in inet_addresses(config, name):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind(address)
        except OSError as error:
            for other in (*listeners, listener):
                other.close()
            raise OSError(error.errno, f"bind {address[0]} port {address[1]}: {error.strerror}") from None
        listener.listen(BACKLOG)
        listener.setblocking(False)
        listeners.append(listener)
    return listeners


def open_unix(queue_directory: str, service: MasterService, owner: tuple[int, int] | None) -> list[socket.socket]:
    """The unix socket of a service; an old one is replaced. Raises OSError."""
    path = os.path.join(queue_directory, "private" if service.private else "public", service.name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass
    kind = socket.SOCK_DGRAM if service.type == "unix-dgram" else socket.SOCK_STREAM
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(path)
    os.chmod(path, 0o666 if service.private or service.name in FOR_EVERYBODY else 0o660)
    if owner is not None:
        os.chown(path, *owner)
    if kind == socket.SOCK_STREAM:
        listener.listen(BACKLOG)
    listener.setblocking(False)
    return [listener]


def open_listeners(config: Config, service: MasterService, owner: tuple[int, int] | None) -> list[socket.socket]:
    """All sockets of ``service``; raises ConfigError with the place in master.cf."""
    try:
        if service.type in ("inet", "pass"):
            return open_inet(config, service.name)
        return open_unix(config.get("queue_directory"), service, owner)
    except ConfigError as error:
        raise ConfigError(error.reason.removeprefix("master.cf: "), f"{config.directory}/master.cf", service.line) from None
    except OSError as error:
        raise ConfigError(error.strerror or str(error), f"{config.directory}/master.cf", service.line) from None

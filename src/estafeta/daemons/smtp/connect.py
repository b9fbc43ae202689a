"""From an address to a connected socket: source address, time limit, unix sockets.

Source: man 5 postconf smtp_bind_address, smtp_bind_address6, smtp_bind_address_enforce, smtp_connect_timeout.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from estafeta.daemons.smtp.settings import Settings
from estafeta.daemons.smtp.trouble import Peer


async def connect(
    loop: asyncio.AbstractEventLoop, peer: Peer, settings: Settings, warn: Callable[[str], None]
) -> socket.socket:
    """A connected, non-blocking socket. Raises OSError; TimeoutError after smtp_connect_timeout."""
    # A task of its own: the time limit needs one, and a delivery is driven without until it first waits.
    return await loop.create_task(_connect(loop, peer, settings, warn))


async def _connect(
    loop: asyncio.AbstractEventLoop, peer: Peer, settings: Settings, warn: Callable[[str], None]
) -> socket.socket:
    if peer.port:
        family = socket.AF_INET6 if ":" in peer.address else socket.AF_INET
        where: tuple[str, int] | str = (peer.address, peer.port)
    else:
        family = socket.AF_UNIX
        where = peer.address
    link = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        link.setblocking(False)
        if peer.port:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _bind(link, settings.bind_address6 if family == socket.AF_INET6 else settings.bind_address, settings, warn)
        if settings.connect_timeout_s:
            async with asyncio.timeout(settings.connect_timeout_s):
                await loop.sock_connect(link, where)
        else:
            await loop.sock_connect(link, where)
    except BaseException:
        link.close()
        raise
    return link


def _bind(link: socket.socket, source: str, settings: Settings, warn: Callable[[str], None]) -> None:
    if not source:
        return
    try:
        link.bind((source, 0))
    except OSError as error:
        warn(f"bind {source}: {error.strerror}")
        if settings.bind_address_enforce:
            raise

"""The addresses of this machine as mail routing sees them: inet_interfaces and proxy_interfaces, numeric text."""

from __future__ import annotations

from socket import AF_INET, AF_INET6, inet_ntop

from estafeta.config.config import Config
from estafeta.config.host import addresses_of


def own_addresses(config: Config) -> frozenset[str]:
    """Looked up once when a worker starts."""
    found = addresses_of(config.words("inet_interfaces"), config.words("inet_protocols"))
    texts = {inet_ntop(AF_INET if len(item.address) == 4 else AF_INET6, item.address) for item in found}
    return frozenset(texts | set(config.words("proxy_interfaces")))

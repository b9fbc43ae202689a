"""What ``/etc/resolv.conf`` says, as a value.

Source: resolv.conf(5) of glibc, whose limits (3 servers, 30 s, 5 attempts, ndots 15) are kept. Unknown
keywords and options are passed over, as glibc does; the parser never fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """Nameservers (numeric), search domains and options. Times are seconds."""

    nameservers: tuple[str, ...] = ("127.0.0.1",)
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout_s: int = 5
    attempts: int = 2
    rotate: bool = False
    edns0: bool = False
    use_tcp: bool = False

    def candidates(self, name: str, *, append_default: bool, search: bool) -> list[str]:
        """Return the absolute names to try in order for ``name``.

        ``append_default`` is RES_DEFNAMES (a name without a dot gets the first domain), ``search`` is
        RES_DNSRCH.
        """
        if name.endswith("."):
            return [name.rstrip(".")]
        dots = name.count(".")
        domains: tuple[str, ...] = ()
        if search:
            domains = self.search
        elif append_default and not dots:
            domains = self.search[:1]
        expanded = [f"{name}.{domain}" if domain else name for domain in domains]
        if not expanded:
            return [name]
        if dots >= self.ndots:
            return [name, *expanded]
        return [*expanded, name]


def parse_resolv_conf(text: str, hostname: str = "") -> ResolvConf:
    """Parse the file's text. Without ``search`` or ``domain`` the domain is what follows the first dot of
    ``hostname``.
    """
    servers: list[str] = []
    search: tuple[str, ...] | None = None
    options: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        if not words or line[0] in "#;":
            continue
        keyword = words[0]
        if keyword == "nameserver" and len(words) > 1:
            if len(servers) < 3 and (server := _server(words[1])) is not None:
                servers.append(server)
        elif keyword == "domain" and len(words) > 1:
            search = (_domain(words[1]),)
        elif keyword == "search":
            search = tuple(_domain(word) for word in words[1:])
        elif keyword == "options":
            for word in words[1:]:
                option, _, value = word.partition(":")
                options[option] = value
    if search is None:
        _, _, domain = hostname.partition(".")
        search = (_domain(domain),) if domain else ()
    return ResolvConf(
        nameservers=tuple(servers) or ("127.0.0.1",),
        search=search,
        ndots=_number(options.get("ndots"), 1, 0, 15),
        timeout_s=_number(options.get("timeout"), 5, 1, 30),
        attempts=_number(options.get("attempts"), 2, 1, 5),
        rotate="rotate" in options,
        edns0="edns0" in options,
        use_tcp="use-vc" in options,
    )


def _server(word: str) -> str | None:
    try:
        return str(ip_address(word))
    except ValueError:
        return None


def _domain(word: str) -> str:
    return word.strip(".")


def _number(word: str | None, default: int, low: int, high: int) -> int:
    if word is None or not (word.isascii() and word.isdigit()):
        return default
    return max(low, min(high, int(word[:9])))

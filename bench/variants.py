"""Pairs of systems with the configurations that the scenarios want."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.mta import Mta

# What patterns of virus and spam filters look like; none matches what is sent.
_WORDS = (
    "^Subject: .*(casino|lottery) number {0}",
    "^Subject: re: your (document|details) {0}[!?]*$",
    "^From: .*<[a-z]+{0}@(example|invalid)[.]",
    '^Content-Disposition: .*name="?[^"]*{0}[.](exe|pif|scr|bat)"?',
    "^X-Mailer: (Bulk|Mass) *Mailer v{0}",
    "^Received: from [^ ]*dsl{0}[.]",
    "^(To|Cc): undisclosed-{0}",
    "^Message-Id: <[0-9]+{0}x@",
)
PATTERNS = "".join(f"/{_WORDS[n % len(_WORDS)].format(n)}/ REJECT number {n}\n" for n in range(200))

# Chapter 7 of the tutorial, with a client, a sender and lists of our own DNS server.
CHECKS = """\
smtpd_helo_required = yes
maps_rbl_domains = rbl.bench
smtpd_client_restrictions = reject_unknown_client_hostname, reject_rbl_client rbl.bench, reject_rbl_client rbl2.bench
smtpd_helo_restrictions = reject_invalid_helo_hostname, reject_unknown_helo_hostname, reject_non_fqdn_helo_hostname
smtpd_sender_restrictions = reject_non_fqdn_sender, reject_unknown_sender_domain, check_sender_access inline:{ {bad.bench = REJECT} }
smtpd_recipient_restrictions = reject_non_fqdn_recipient, reject_unauth_destination
header_checks = regexp:{etc}/header_checks
body_checks = regexp:{etc}/body_checks
"""
HEADER_CHECKS = """\
/^date:.*bad$/i REJECT
/^Content-Disposition: Multipart message/ REJECT
/^X-Unsent: 1/ REJECT
/^From: ".*" <_/ REJECT
/^Subject: new photos from my party!/ REJECT
/^Subject: Re: Your password!/ REJECT
"""
BODY_CHECKS = """\
/Accept Credit Cards/ REJECT
/Nude Celebrities/ REJECT
/PRODUCT or SERVICE/ REJECT
/GUARANTEED!/ REJECT
/Amateur Girls/ REJECT
/FREE MEMBERSHIP/ REJECT
/bizinfo/ REJECT
"""
DNS_ADDRESS = "127.0.0.54"
UNBOUND = """\
server:
  interface: {address}
  port: 53
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "{top}"
  pidfile: "{top}/unbound.pid"
  use-syslog: no
  num-threads: 1
  do-ip6: no
  module-config: "iterator"
  local-zone: "bench." static
  local-data: "bench. 3600 SOA client.bench. root.client.bench. 1 3600 600 86400 300"
  local-data: "client.bench. 60 A 127.0.0.1"
  local-data: "bench.example. 60 A 127.0.0.1"
  local-data: "bench.example. 60 MX 10 client.bench."
  local-zone: "." static
remote-control:
  control-enable: no
"""


@contextmanager
def _pair(
    base: Path, sink_port: int, extra: str = "", files: dict[str, str] | None = None, resolver: Path | None = None
) -> Iterator[list[Mta]]:
    both = [
        Mta(name, base, port, sink_port, process_limit=1100, extra=extra, files=files, resolver=resolver)
        for name, port in (("postfix", 25901), ("estafeta", 25902))
    ]
    try:
        for mta in both:
            mta.start()
        yield both
    finally:
        for mta in both:
            mta.stop()


@contextmanager
def plain(base: Path, sink_port: int) -> Iterator[list[Mta]]:
    """Nothing special."""
    with _pair(base, sink_port) as both:
        yield both


@contextmanager
def patterns(base: Path, sink_port: int) -> Iterator[list[Mta]]:
    """200 header patterns, none of which matches."""
    with _pair(base, sink_port, "header_checks = regexp:{etc}/patterns\n", {"patterns": PATTERNS}) as both:
        yield both


@contextmanager
def checks(base: Path, sink_port: int) -> Iterator[list[Mta]]:
    """Chapter 7's checks, answered by an unbound of our own (Debian's ``unbound``), which only these two systems ask."""
    base.mkdir()
    (base / "unbound.conf").write_text(UNBOUND.format(address=DNS_ADDRESS, top=base))
    (base / "resolv.conf").write_text(f"nameserver {DNS_ADDRESS}\n")
    unbound = subprocess.Popen(["unbound", "-d", "-c", str(base / "unbound.conf")], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        files = {"header_checks": HEADER_CHECKS, "body_checks": BODY_CHECKS}
        with _pair(base, sink_port, CHECKS, files, base / "resolv.conf") as both:
            yield both
    finally:
        unbound.terminate()
        unbound.wait()

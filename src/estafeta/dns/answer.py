"""What a look-up came to, and the words for it.

Source: RFC 2308 (negative answers), RFC 1034 section 3.6.2 (aliases); texts as logged by Postfix and getaddrinfo(3).
Invariant: pure; ``judge`` gives an Answer for any well-formed response.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from estafeta.dns.wire import Rcode, Record, Response, RRType, WireError

HOST_NOT_FOUND = "Host not found"
NO_DATA = "Host found but no data record of requested type"
TRY_AGAIN = "Host not found, try again"
NO_RECOVERY = "Non-recoverable error"
MALFORMED = "Malformed or unexpected name server reply"

MAX_ALIASES = 10


class Outcome(Enum):
    """What a look-up came to. FAIL is temporary: ask again later.

    BROKEN is a reply code without a remedy (FORMERR ...), INVALID an impossible name or nonsense in the answer: both
    are permanent.
    """

    OK = "ok"
    NXDOMAIN = "nxdomain"
    NODATA = "nodata"
    FAIL = "fail"
    BROKEN = "broken"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Answer:
    """``records`` of the asked type (the end of an alias chain); ``reason`` is the log text when there are
    none.

    ``secure`` is the AD bit of an answer that was asked for with ``dnssec``. ``name`` is the last name of the
    alias chain. ``ttl_s`` is the smallest time to live on the way. A temporary failure can be ``invalid``:
    the name itself is bad.
    """

    outcome: Outcome
    records: tuple[Record, ...] = ()
    secure: bool = False
    reason: str = ""
    name: str = ""
    ttl_s: int = 0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Numeric addresses of a host, in the order found. Without any: ``reason`` as logged."""

    outcome: Outcome
    addresses: tuple[str, ...] = ()
    reason: str = ""
    secure: bool = False
    name: str = ""


# What getaddrinfo(3) of glibc says for the same outcome.
_EAI = {
    Outcome.OK: "",
    Outcome.NXDOMAIN: "Name or service not known",
    Outcome.NODATA: "No address associated with hostname",
    Outcome.FAIL: "Temporary failure in name resolution",
    Outcome.BROKEN: "Non-recoverable failure in name resolution",
    Outcome.INVALID: "Name or service not known",
}


def native_error(outcome: Outcome) -> str:
    """Return the text of getaddrinfo(3) for an outcome."""
    return _EAI[outcome]


def _type_name(rtype: int) -> str:
    try:
        return RRType(rtype).name
    except ValueError:
        return str(rtype)


def failure_reason(name: str, rtype: int, text: str) -> str:
    return f"Host or domain name not found. Name service error for name={name} type={_type_name(rtype)}: {text}"


def malformed_reason(name: str, rtype: int) -> str:
    """Return the log text for an answer whose contents are nonsense."""
    return f"Name service error for name={name} type={_type_name(rtype)}: {MALFORMED}"


def judge(name: str, rtype: int, dnssec: bool, response: Response) -> Answer:
    """Turn a response into an Answer: follow the aliases inside it and keep the records of the type."""
    secure = dnssec and response.authentic
    wanted = to_ascii(name).lower().removesuffix(".")
    ttl: int | None = None
    aliased = name
    if response.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
        # Records come in any order; each round of the chain takes one alias.
        aliases = {r.name.lower(): r for r in response.answers if r.rtype == RRType.CNAME}
        for _ in range(MAX_ALIASES):
            alias = aliases.pop(wanted, None) if rtype != RRType.CNAME else None
            if alias is None:
                break
            aliased, wanted = alias.value, alias.value.lower()
            ttl = alias.ttl_s if ttl is None else min(ttl, alias.ttl_s)
    if response.rcode == Rcode.NOERROR:
        records = tuple(r for r in response.answers if r.rtype == rtype and r.name.lower() == wanted)
        if records:
            shortest = min(record.ttl_s for record in records)
            ttl = shortest if ttl is None else min(ttl, shortest)
            return Answer(Outcome.OK, records, secure, "", aliased, ttl)
    negative = response.negative_ttl_s or 0
    ttl = negative if ttl is None else min(ttl, negative)
    if response.rcode == Rcode.NOERROR:
        return Answer(Outcome.NODATA, (), secure, failure_reason(name, rtype, NO_DATA), aliased, ttl)
    if response.rcode == Rcode.NXDOMAIN:
        return Answer(Outcome.NXDOMAIN, (), secure, failure_reason(name, rtype, HOST_NOT_FOUND), aliased, ttl)
    return Answer(Outcome.BROKEN, (), False, failure_reason(name, rtype, NO_RECOVERY), aliased, 0)


def to_ascii(name: str) -> str:
    """Return the A-label form; WireError when there is none."""
    if name.isascii():
        return name
    import idna

    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise WireError("no internationalised domain name") from None

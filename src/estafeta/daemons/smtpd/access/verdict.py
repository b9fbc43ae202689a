"""The vocabulary of restrictions: what they look at, what they answer, and the texts that both need.

Source: postconf(5), access(5) ENHANCED STATUS CODES. Pure: no look-up happens here.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from estafeta.dns.client_name import NameStatus
from estafeta.mail.address import quote_address
from estafeta.mail.text import to_bytes, to_text


@dataclass(frozen=True, slots=True)
class Verdict:
    """A refusal: reply code, enhanced status, text. The class of the status follows the code."""

    code: int
    dsn: str
    text: str

    @property
    def reply(self) -> bytes:
        return f"{self.code} {self.dsn} {self.text}".encode("utf-8", "surrogateescape")

    @property
    def hangs_up(self) -> bool:
        """access(5): 421 and 521 end the session."""
        return self.code in (421, 521)


@dataclass(slots=True)
class Actions:
    """What access tables want to be done with the message (access(5) OTHER ACTIONS)."""

    hold: bool = False
    discard: bool = False
    filter: str = ""
    redirect: str = ""
    bcc: list[str] = field(default_factory=list)
    prepend: list[str] = field(default_factory=list)

    @property
    def prepended(self) -> bytes:
        """The header lines that PREPEND asks for."""
        return to_bytes("".join(f"{line}\r\n" for line in self.prepend))


@dataclass(slots=True)
class Facts:
    """What the restrictions look at. TLS and SASL fill in theirs; empty means that there is none."""

    client_name: str
    client_address: str
    helo: str = ""
    esmtp: bool = False
    sender: bytes | None = None
    recipient: bytes | None = None
    pipelined: bool = False  # the client sent more before it had the answer
    defer_if_permit: Verdict | None = None
    defer_if_reject: Verdict | None = None
    session_defer: Verdict | None = None  # smtpd_delay_reject = no: a defer_if_permit of CONNECT or HELO
    message_defer: Verdict | None = None  # the same with that of MAIL
    client_port: str = ""
    reverse_name: str = "unknown"
    name_status: NameStatus = NameStatus.OK
    reverse_status: NameStatus = NameStatus.OK
    server_address: str = ""
    server_port: str = ""
    queue_id: str = ""
    instance: str = ""  # the same for all questions about one message
    size: int = 0  # as declared; after the content: as it is
    recipient_count: int = 0
    etrn_domain: str = ""
    sasl_method: str = ""
    sasl_username: str = ""
    sasl_sender: str = ""
    tls: bool = False  # the session is encrypted; the certificate's facts are empty without one
    tls_protocol: str = ""
    tls_cipher: str = ""
    tls_keysize: int = 0
    ccert_trusted: bool = False
    ccert_subject: str = ""
    ccert_issuer: str = ""
    ccert_fingerprint: str = ""  # upper-case hexadecimal with colons
    ccert_pubkey_fingerprint: str = ""
    actions: Actions | None = None
    memory: dict[tuple[str, str], object] = field(default_factory=dict)  # of this session: DNSBL answers, policy connections

    @property
    def is_discarded(self) -> bool:
        """An access table said DISCARD: who the addresses are does not matter any more."""
        return self.actions is not None and self.actions.discard

    def begin_recipient(self) -> None:
        """What the lists found about another recipient does not count for the next."""
        self.defer_if_permit = self.message_defer
        self.defer_if_reject = None

    def act(self) -> Actions:
        """The message's actions, made when the first is wanted."""
        if self.actions is None:
            self.actions = Actions()
        return self.actions


PERMIT = "permit"
MAPPING = "mapping"  # a note that is a line of its own
CONFIGURATION_ERROR = Verdict(451, "4.3.5", "Server configuration error")
Result = Verdict | str | None

_CLASSES = {
    "client": "Client host",
    "helo": "Helo command",
    "sender": "Sender address",
    "relay": "Recipient address",
    "recipient": "Recipient address",
    "data": "Data command",
    "end_of_data": "End-of-data",
    "etrn": "Etrn command",
}


@dataclass(slots=True)
class Scene:
    """One walk through a list: the facts, and how the refusal names what it refuses (``<name>: kind rejected``)."""

    facts: Facts
    name: str
    kind: str
    command: str
    soft: bool  # warn_if_reject
    warned: Callable[[Verdict], None]
    note: Callable[[str, str], None]  # (warn, info, hold ...; text) for the log
    depth: int = 0
    stage: str = ""

    def about(self, name: str, kind: str) -> Scene:
        """The same, about something else than the list's own subject."""
        return replace(self, name=name, kind=kind)

    def refuse(self, code: int, dsn: str, text: str) -> Verdict:
        """``<name>: kind rejected: text``."""
        return Verdict(code, f"{code // 100}{dsn[1:]}", f"<{self.name}>: {self.kind} rejected: {text}")

    def status(self, code: int, dsn: str) -> str:
        """The status that fits the code and what is refused; the log says when that is another one."""
        fixed = fixed_status(code, dsn, self.kind)
        if fixed[2:] != dsn[2:]:
            self.note(MAPPING, f"mapping DSN status {dsn} into {self.kind} status {fixed}")
        return fixed

    def defer_if_permit(self, verdict: Verdict) -> None:
        """Temporary trouble: no permission later on. The first stays."""
        if self.soft:
            self.warned(verdict)
        elif self.facts.defer_if_permit is None:
            self.facts.defer_if_permit = verdict

    def defer_if_reject(self, verdict: Verdict) -> None:
        """A later refusal becomes temporary. The first stays."""
        if self.soft:
            self.warned(verdict)
        elif self.facts.defer_if_reject is None:
            self.facts.defer_if_reject = verdict

    def tempfail(self, action: str, verdict: Verdict) -> Result:
        """A *_tempfail_action: defer_if_permit or defer (postconf(5) reject_tempfail_action)."""
        if action == "defer":
            return verdict
        self.defer_if_permit(verdict)
        return None


Check = Callable[[Scene], Awaitable[Result]]


def scene_for(
    stage: str, facts: Facts, command: str, warned: Callable[[Verdict], None], note: Callable[[str, str], None]
) -> Scene:
    """The scene of a list, as it begins."""
    if stage == "client":
        name = f"{facts.client_name}[{facts.client_address}]"
    elif stage == "helo":
        name = facts.helo
    elif stage == "sender":
        name = shown(facts.sender or b"")
    elif stage in ("relay", "recipient"):
        name = shown(facts.recipient or b"")
    elif stage == "etrn":
        name = facts.etrn_domain
    else:
        name = "DATA" if stage == "data" else "END-OF-MESSAGE"
    return Scene(facts, name, _CLASSES[stage], command, False, warned, note, 0, stage)


# --- enhanced status codes -----------------------------------------------------------------------------------------------------

_STATUS = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:\s+|\Z)")
_TO_SENDER = {"1.1": "1.7", "1.2": "1.8", "1.3": "1.7", "1.4": "1.7", "1.6": "1.7", "1.7": "1.7", "1.8": "1.8"}
_TO_RECIPIENT = {**{f"1.{n}": f"1.{n}" for n in range(7)}, "1.7": "1.3", "1.8": "1.2"}


def fixed_status(code: int, dsn: str, kind: str) -> str:
    """The status with the class of ``code``; address statuses only for addresses (access(5) ENHANCED STATUS CODES)."""
    detail = dsn[2:]
    if detail.startswith("1."):
        if kind == "Sender address":
            detail = _TO_SENDER.get(detail, "1.0")
        elif kind == "Recipient address":
            detail = _TO_RECIPIENT.get(detail, "1.0")
        else:
            detail = "0.0"
    return f"{code // 100}.{detail}"


def split_status(text: str, default: str) -> tuple[str, str]:
    """(enhanced status, rest) of a text that may begin with one."""
    found = _STATUS.match(text)
    return (found[1], text[found.end() :]) if found else (default, text)


# --- names and addresses -------------------------------------------------------------------------------------------------------

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


def shown(address: bytes) -> str:
    """An address as replies show it: without quotes, control characters blanked."""
    return _UNPRINTABLE.sub(" ", to_text(address))


def logged(address: bytes) -> str:
    """An address in a ``reject:`` line: quoted where it has to be."""
    if address.startswith(b"@"):
        return '""' + to_text(address)
    return to_text(quote_address(address)) if address else ""


def is_hostname(name: str) -> bool:
    """True for syntactically valid host names (labels of letters, digits, hyphens, underscores)."""
    labels = name.rstrip(".").split(".")
    return bool(name) and len(name) <= 255 and all(_is_label(label) for label in labels) and not labels[-1].isdigit()


def is_numeric(name: str) -> bool:
    """True for an IP address without brackets."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, name)
        except (OSError, ValueError):
            continue
        return True
    return False


def literal_address(name: str) -> str:
    """The IP address in ``[1.2.3.4]`` or ``[IPv6:...]``; empty if it is none."""
    if not (name.startswith("[") and name.endswith("]")):
        return ""
    inner = name[1:-1]
    if inner[:5].lower() == "ipv6:":
        inner = inner[5:]
    return inner if is_numeric(inner) else ""


def domain_of(address: bytes) -> str:
    """The domain of an internal address; empty without one."""
    return to_text(address.rpartition(b"@")[2]) if b"@" in address else ""


def _is_label(label: str) -> bool:
    plain = label.replace("-", "").replace("_", "")
    return 0 < len(label) < 64 and not label.startswith("-") and not label.endswith("-") and (plain.isalnum() or not plain)

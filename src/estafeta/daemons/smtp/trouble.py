"""Why mail could not be handed over: what is logged, what the queue manager and the sender are told.

Source: man 8 smtp; texts as observed from smtp(8). Invariant: a trouble never contains a line break.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from estafeta.protocol.smtp_client_phase import Phase, lost_text, refused_text, said_text, timed_out_text
from estafeta.protocol.smtp_reply import SmtpReply


@dataclass(frozen=True, slots=True)
class Peer:
    """The server at one address. ``port`` 0: ``address`` is the path of a unix socket."""

    host: str
    address: str
    port: int

    @property
    def name(self) -> str:
        """``host[address]``, as in most texts."""
        return f"{self.host}[{self.address}]"

    @property
    def relay(self) -> str:
        """``host[address]:port``, as in relay= of the log."""
        return f"{self.name}:{self.port}" if self.port else self.name


@dataclass(frozen=True, slots=True)
class Trouble:
    """``throttle``: the destination as a whole is to blame. ``loop``: the mail would come back to us."""

    dsn: str
    text: str
    throttle: bool = False
    relay: str = "none"
    mta: str = ""
    diagnostic: str = ""
    loop: bool = False
    timed_out: bool = False
    retry_plain: bool = False  # opportunistic TLS failed: the same server may be tried in clear

    @property
    def temporary(self) -> bool:
        """Whether trying later can help."""
        return self.dsn[0] != "5"


def connect_trouble(peer: Peer, error: OSError | None) -> Trouble:
    """No connection; ``error`` None is the end of smtp_connect_timeout."""
    reason = "Connection timed out"
    if error is not None:
        reason = os.strerror(error.errno) if error.errno else str(error)
    return Trouble("4.4.1", f"connect to {peer.relay}: {reason}", throttle=True)


def lost_trouble(peer: Peer, phase: Phase, *, timed_out: bool) -> Trouble:
    """The conversation ended before its time."""
    text = timed_out_text(peer.name, phase) if timed_out else lost_text(peer.name, phase)
    return Trouble("4.4.2", text, throttle=True, relay=peer.relay, mta=peer.host, timed_out=timed_out)


def refused_trouble(peer: Peer, reply: SmtpReply, *, soften: bool = False) -> Trouble:
    """A greeting or hello that is none of 2xx; ``soften`` makes it temporary (smtp_skip_5xx_greeting)."""
    text = refused_text(peer.name, reply)
    trouble = Trouble(reply.status, text, throttle=True, relay=peer.relay, mta=peer.host, diagnostic=reply.diagnostic)
    if soften and reply.code // 100 == 5:
        return replace(trouble, dsn="4" + trouble.dsn[1:])
    return trouble


def reply_trouble(peer: Peer, reply: SmtpReply, phase: Phase) -> Trouble:
    """A command of a transaction was refused."""
    text = said_text(peer.name, reply, phase)
    status = reply.status
    if status[0] not in "45":
        # Success where there can be none, as 250 for DATA.
        status = "5.5.0"
        text = "Protocol error: " + text
    return Trouble(status, text, relay=peer.relay, mta=peer.host, diagnostic=reply.diagnostic)


def message_trouble(peer: Peer, dsn: str, text: str) -> Trouble:
    """This server cannot take this message; found out by ourselves."""
    return Trouble(dsn, text, relay=peer.relay, mta=peer.host)

"""TLS under one SMTP session: a transport that enciphers, and what the handshake of a client says and leads to.

Source: RFC 3207, TLS_README; log lines and texts as observed from smtp(8). To the session it is a transport.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from estafeta.daemons.smtp.trouble import Peer, Trouble
from estafeta.tls.client import ClientTls, Target
from estafeta.tls.key_files import TlsSetupError
from estafeta.tls.pipe import TlsError, TlsPipe
from estafeta.tls.policy import ClientPolicy
from estafeta.tls.summary import summarize

CONFIGURATION = "client TLS configuration problem"


@dataclass(frozen=True, slots=True)
class Security:
    """What a session does about TLS. ``tls`` None: nothing, and ``policy`` says none."""

    policy: ClientPolicy
    tls: ClientTls | None = None
    wrapper: bool = False
    note_offer: bool = False

    @property
    def reusable(self) -> bool:
        """Whether an encrypted session may serve a second delivery."""
        return self.tls is not None and self.tls.reuses(self.policy)


class Secured:
    """The transport of a session after STARTTLS."""

    def __init__(self, raw: Any, pipe: TlsPipe) -> None:
        self._raw = raw
        self.pipe = pipe

    def write(self, data: bytes) -> None:
        """Encipher and send."""
        if data:
            try:
                self._raw.write(self.pipe.write(data))
            except TlsError:
                self._raw.abort()

    def send_records(self) -> None:
        """Send what the handshake has to say."""
        data = self.pipe.outgoing()
        if data:
            self._raw.write(data)

    def close(self) -> None:
        """Tell the server, and close when all is sent."""
        data = self.pipe.close()
        if data:
            self._raw.write(data)
        self._raw.close()

    def abort(self) -> None:
        """Close now."""
        self._raw.abort()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


class Handshake:
    """One handshake: fed by the session, over when ``feed`` gives a Trouble or ``done`` is true."""

    def __init__(self, security: Security, peer: Peer, destination: str, raw: Any) -> None:
        assert security.tls is not None
        self._tls = security.tls
        self._policy = security.policy
        self._peer = peer
        self._target = Target(destination, peer.host, peer.address, peer.port)
        self.done = False
        self.verified = False
        self.transport = Secured(raw, self._tls.open(security.policy, self._target))

    def feed(self, data: bytes, info: Callable[[str], None], warn: Callable[[str], None]) -> Trouble | bool:
        """Bytes from the server (b"" first, to begin). True when it is done, or the trouble that ends it."""
        pipe = self.transport.pipe
        if data:
            pipe.feed(data)
        try:
            finished = pipe.shake_hands()
        except TlsError as error:
            self.transport.send_records()
            return self.failed("-1", info, warn, error.reason)
        self.transport.send_records()
        if not finished:
            return False
        return self._verdict(info)

    def failed(
        self, reason: str, info: Callable[[str], None], warn: Callable[[str], None], detail: str = ""
    ) -> Trouble:
        """It did not come to an end."""
        info(f"SSL_connect error to {self._peer.relay}: {reason}")
        if detail:
            warn(f"TLS library problem: {detail}")
        return Trouble(
            "4.7.5", "Cannot start TLS: handshake failure", throttle=True, relay=self._peer.relay, mta=self._peer.host,
            retry_plain=self._policy.level == "may",
        )  # fmt: skip

    def _verdict(self, info: Callable[[str], None]) -> Trouble | bool:
        tls = self._tls
        summary = summarize(self.transport.pipe.link, server_side=False, digest=tls.digest)
        verdict = tls.judge(summary, self._policy, self._target)
        if tls.log_level >= 1:
            if verdict.complaint:
                info(f"server certificate verification failed for {self._peer.relay}: {verdict.complaint}")
            info(f"{verdict.word} TLS connection established to {self._peer.relay}: {summary.text}")
        if verdict.refusal:
            return Trouble("4.7.5", verdict.refusal, throttle=True, relay=self._peer.relay, mta=self._peer.host)
        self.done = True
        self.verified = verdict.word == "Verified"
        return True

    def remember(self) -> None:
        """The session is good: keep it for the next connection."""
        self._tls.remember(self.transport.pipe, self._policy, self._target)


def begin(security: Security, peer: Peer, destination: str, raw: Any, warn: Callable[[str], None]) -> Handshake | Trouble:
    """A handshake that can be fed, or why there is none."""
    try:
        return Handshake(security, peer, destination, raw)
    except (TlsSetupError, OSError, ValueError) as error:
        warn(f"TLS policy for {destination}/{peer.host}: {error}")
        return configuration_trouble(peer)


def configuration_trouble(peer: Peer) -> Trouble:
    """What is asked for cannot be done with this configuration."""
    return Trouble("4.7.5", CONFIGURATION, throttle=True, mta=peer.host)

"""STARTTLS and wrapper mode: from the command over the handshake to what is known of the client.

Source: RFC 3207, TLS_README, postconf(5) smtpd_tls_*; replies and log lines as observed from smtpd(8). Invariant: a handshake that
succeeds starts the conversation anew: nothing that was said in clear counts (RFC 3207 section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from estafeta.config.config import Config
from estafeta.protocol.smtp_server import Command
from estafeta.tls.key_files import TlsSetupError
from estafeta.tls.library import library
from estafeta.tls.server import ServerContext, ServerTls, open_server_context
from estafeta.tls.summary import Summary, summarize

if TYPE_CHECKING:
    from estafeta.daemons.smtpd.session import Session


def open_context(config: Config, tls: ServerTls, warn: Callable[[str], None]) -> ServerContext | None:
    """The context of the service; None, with a warning, when it cannot be made: STARTTLS then gets 454."""
    if not tls.offered:
        return None
    try:
        return open_server_context(config, tls)
    except TlsSetupError as error:
        warn(f"{error}: disabling TLS support")
        return None


async def starttls_command(session: Session, command: Command) -> None:
    """STARTTLS."""
    settings = session.service.settings
    if command.argument:
        session.failed(b"STARTTLS", b"501 5.5.4 Syntax: STARTTLS")
        return
    if session.tls is not None:
        session.failed(b"STARTTLS", b"554 5.5.1 Error: TLS already active")
        return
    if not settings.starttls:
        session.failed(b"STARTTLS", b"502 5.5.1 Error: command not implemented")
        return
    if session.service.tls_context is None:
        session.failed(b"STARTTLS", b"454 4.7.0 TLS not available due to local problem")
        return
    session.machine.restart()  # what was pipelined behind the command came in clear: it goes (RFC 3207, CVE-2011-0411)
    session.reply(b"220 2.0.0 Ready to start TLS")
    session.flush()
    session.counts["starttls"] += 1
    if await secure(session):
        session.counts["starttls/ok"] += 1


async def secure(session: Session) -> bool:
    """Shake hands and start anew; false when that failed and the session is over."""
    service = session.service
    tls = service.settings.tls
    if service.tls_context is None:
        session.close()
        return False
    if tls.log_level >= 2:
        session.info(f"setting up TLS connection from {session.where}")
        session.info(f'{session.where}: TLS cipher list "{service.tls_context.cipher_list}"')
    session.deadline = service.now() + tls.timeout_s
    failure = await session.shake_hands(service.tls_context.current())
    session.deadline = service.now() + service.settings.timeout_s
    if session.closed:
        return False
    link = session.tls_link
    if failure or link is None:
        _failed(session, failure)
        return False
    session.drop_transaction()
    session.helo = session.facts.helo = ""
    session.facts.sasl_method = session.facts.sasl_username = ""
    session.facts.esmtp = session.facts.pipelined = False
    session.protocol = "SMTP"
    session.must_start_tls = False
    session.tls = summary = summarize(link, server_side=True, digest=tls.digest)
    _tell(session, summary)
    _note(session, summary)
    if tls.require_certificate:
        _look_at_certificate(session, summary)
    return True


def _failed(session: Session, failure: str) -> None:
    reason, _, detail = failure.partition(": ")
    if session.service.settings.tls.log_level >= 0:
        session.info(f"SSL_accept error from {session.where}: {reason}")
    if detail:
        session.warning(f"TLS library problem: {detail}")
    session.lost()


def _tell(session: Session, summary: Summary) -> None:
    level = session.service.settings.tls.log_level
    if level >= 2 and summary.resumed:
        session.info(f"{session.where}: Reusing old session (RFC 5077 session ticket)")
    if level >= 1:
        if session.service.settings.tls.require_certificate and summary.certificate is not None and not summary.trusted:
            words = library().verify_text(summary.verify_result)
            session.info(f"certificate verification failed for {session.where}: {words}")
        session.info(f"{summary.status} TLS connection established from {session.where}: {summary.text}")


def _note(session: Session, summary: Summary) -> None:
    """What the restrictions look at."""
    facts = session.facts
    facts.tls = True
    facts.tls_protocol, facts.tls_cipher, facts.tls_keysize = summary.protocol, summary.cipher, summary.bits
    facts.ccert_trusted = summary.trusted
    certificate = summary.certificate
    if certificate is not None:
        facts.ccert_subject = certificate.subject
        facts.ccert_issuer = certificate.issuer
        facts.ccert_fingerprint = certificate.fingerprint
        facts.ccert_pubkey_fingerprint = certificate.pubkey_fingerprint


def _look_at_certificate(session: Session, summary: Summary) -> None:
    """smtpd_tls_req_ccert: without a good certificate the next command gets 421, whatever it is."""
    if not summary.trusted:
        missing = summary.certificate is None
        session.doomed = "No client certificate presented" if missing else "Client certificate not trusted"
        session.must_start_tls = True


def end_doomed(session: Session) -> None:
    """Refuse a client whose certificate will not do."""
    session.info(f"NOQUEUE: abort: TLS from {session.where}: {session.doomed}")
    session.reply_now(f"421 4.7.1 {session.service.settings.myhostname} Error: {session.doomed}".encode())
    session.close()


def received_lines(session: Session, summary: Summary) -> str:
    """What smtpd_tls_received_header adds."""
    first, *more = summary.lines
    using = "".join((f"\t(using {first}", *(f"\r\n\t {line}" for line in more), ")\r\n"))
    certificate = summary.certificate
    if certificate is not None:
        verified = "verified OK" if summary.trusted else "not verified"
        return f'{using}\t(Client CN "{certificate.subject}", Issuer "{certificate.issuer}" ({verified}))\r\n'
    if session.service.settings.tls.ask_certificate:
        return f"{using}\t(Client did not present a certificate)\r\n"
    return f"{using}\t(No client certificate requested)\r\n"

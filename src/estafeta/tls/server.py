"""The server's side: what smtpd_tls_* says, and the context that is made of it.

Source: postconf(5) smtpd_tls_*, TLS_README. ``read`` needs no file; ``open`` reads certificates and keys, with the master's
privileges. Invariant: workers of the same service share ticket keys, so a client resumes on any of them until the period is over.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from estafeta.config.config import Config
from estafeta.tls.certificate import DIGESTS
from estafeta.tls.key_files import TlsSetupError, load_authorities, load_chains, load_pair, readable
from estafeta.tls.library import library
from estafeta.tls.options import curves_for, set_ciphers, set_common_options, set_protocols
from estafeta.tls.protocols import exclusions
from estafeta.tls.ticket_keys import ticket_keys

LEVELS = ("none", "may", "encrypt")
_STRONGER = frozenset(("dane", "dane-only", "half-dane", "fingerprint", "verify", "secure"))
_PAIRS = (
    ("RSA", "smtpd_tls_cert_file", "smtpd_tls_key_file"),
    ("DSA", "smtpd_tls_dcert_file", "smtpd_tls_dkey_file"),
    ("ECDSA", "smtpd_tls_eccert_file", "smtpd_tls_eckey_file"),
)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What a session has to know. ``level`` is one of LEVELS; ``require_certificate`` counts at ``encrypt`` alone."""

    level: str = "none"
    wrapper: bool = False
    auth_only: bool = False
    ask_certificate: bool = False
    require_certificate: bool = False
    received_header: bool = False
    log_level: int = 0
    timeout_s: float = 300.0
    digest: str = "sha256"
    session_lifetime_s: int = 3600

    @property
    def enforced(self) -> bool:
        """Whether mail is not taken in clear."""
        return self.wrapper or self.level == "encrypt"

    @property
    def offered(self) -> bool:
        """Whether there is TLS at all."""
        return self.wrapper or self.level != "none"


def security_level(config: Config, warn: Callable[[str], None]) -> str:
    """smtpd_tls_security_level, or what its ancestors say. Raises ConfigError."""
    level = config.get("smtpd_tls_security_level").strip().lower()
    if level in LEVELS:
        return level
    if level in _STRONGER:
        warn(f'smtpd_tls_security_level: unsupported level "{level}", using "encrypt" instead')
        return "encrypt"
    if level:
        raise config.error("smtpd_tls_security_level", f'Invalid TLS level "{level}" (specify none, may or encrypt)')
    if config.bool("smtpd_enforce_tls"):
        return "encrypt"
    return "may" if config.bool("smtpd_use_tls") else "none"


def log_level(text: str) -> int:
    """smtpd_tls_loglevel: a number from 0 to 4, or one of the words for it."""
    words = {"none": 0, "summary": 1, "verbose": 2, "debug": 3, "trace": 4}
    text = text.strip().lower()
    return words.get(text, int(text) if text.isascii() and text.isdigit() else 0)


def read_server_tls(config: Config, warn: Callable[[str], None]) -> ServerTls:
    """Raises ConfigError."""
    level = security_level(config, warn)
    wrapper = config.bool("smtpd_tls_wrappermode")
    require = config.bool("smtpd_tls_req_ccert")
    if require and not wrapper and level == "may":
        warn("Can't require client certs unless TLS is required")
        require = False
    digest = config.get("smtpd_tls_fingerprint_digest").strip().lower()
    if digest not in DIGESTS:
        raise config.error("smtpd_tls_fingerprint_digest", f'unknown digest algorithm "{digest}"')
    return ServerTls(
        level="encrypt" if wrapper else level,
        wrapper=wrapper,
        auth_only=config.bool("smtpd_tls_auth_only"),
        ask_certificate=require or config.bool("smtpd_tls_ask_ccert"),
        require_certificate=require,
        received_header=config.bool("smtpd_tls_received_header"),
        log_level=log_level(config.get("smtpd_tls_loglevel")),
        timeout_s=config.seconds("smtpd_starttls_timeout"),
        digest=digest,
        session_lifetime_s=int(config.seconds("smtpd_tls_session_cache_timeout")),
    )


class ServerContext:
    """A context whose ticket keys follow the clock. ``cipher_list`` is for the log."""

    def __init__(self, context: ssl.SSLContext, service: bytes, lifetime_s: int, cipher_list: str) -> None:
        self._context = context
        self._service = service
        self._lifetime_s = max(1, min(lifetime_s, 8640000))
        self._epoch = -1
        self.cipher_list = cipher_list

    def current(self) -> ssl.SSLContext:
        """The context for one more connection."""
        epoch = int(time.time()) // self._lifetime_s
        if epoch != self._epoch:
            self._epoch = epoch
            library().set_ticket_keys(self._context, ticket_keys(self._service, epoch))
        return self._context


def open_server_context(config: Config, tls: ServerTls) -> ServerContext:
    """Read the files and make the context. Raises TlsSetupError, ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    enforced = tls.enforced
    name = "smtpd_tls_mandatory_protocols" if enforced else "smtpd_tls_protocols"
    set_protocols(context, config.get(name), name)
    exclude = exclusions(
        config.get("smtpd_tls_exclude_ciphers"),
        config.get("smtpd_tls_mandatory_exclude_ciphers") if enforced else "",
        "aNULL" if tls.ask_certificate else "",
    )
    name = "smtpd_tls_mandatory_ciphers" if enforced else "smtpd_tls_ciphers"
    ciphers = set_ciphers(context, config, config.get(name), exclude, name)
    set_common_options(context, config, curves=curves_for(config, config.get("smtpd_tls_eecdh_grade")))
    if config.bool("tls_preempt_cipherlist"):
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    used = _load_own(context, config)
    _load_dh(context, config)
    authorities = [config.get("smtpd_tls_CAfile").strip(), config.get("smtpd_tls_CApath").strip()]
    load_authorities(context, *authorities, default=config.bool("tls_append_default_CA"))
    shim = library()
    context.verify_mode = ssl.CERT_NONE
    if tls.ask_certificate:
        shim.ask_for_certificate(context)
        shim.set_verify_depth(context, config.int("smtpd_tls_ccert_verifydepth"))
        if authorities[0]:
            shim.announce_authorities(context, authorities[0])
    if tls.session_lifetime_s > 0:
        context.num_tickets = 1
        shim.set_session_lifetime(context, tls.session_lifetime_s)
    else:
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        shim.no_server_cache(context)
    service = "\0".join((*used, *authorities, str(tls.ask_certificate), str(tls.require_certificate), ciphers))
    return ServerContext(context, service.encode("utf-8", "surrogateescape"), tls.session_lifetime_s, ciphers)


def _load_own(context: ssl.SSLContext, config: Config) -> list[str]:
    """The server's own certificates; the files that were used."""
    chains = config.words("smtpd_tls_chain_files")
    if chains:
        load_chains(context, chains)
        return chains
    found = []
    for kind, certificate_name, key_name in _PAIRS:
        certificate = config.get(certificate_name).strip()
        if certificate and not (kind == "RSA" and certificate.lower() == "none"):
            key = config.get(key_name).strip() or certificate
            load_pair(context, kind, certificate, key)
            found += [certificate, key]
    if not found and config.get("smtpd_tls_cert_file").strip().lower() != "none":
        raise TlsSetupError("No server certs available. TLS won't be enabled")
    return found


def _load_dh(context: ssl.SSLContext, config: Config) -> None:
    path = config.get("smtpd_tls_dh1024_param_file").strip()
    if path in ("", "auto"):
        library().set_automatic_dh(context)
        return
    if path == "none":
        return
    readable(path, "cannot load DH parameters from file")
    try:
        context.load_dh_params(path)
    except (ssl.SSLError, OSError) as error:
        raise TlsSetupError(f'cannot load DH parameters from file "{path}": {error}') from None


def server_files(config: Config) -> list[str]:
    """The files whose change calls for a new context."""
    names = [name for _, certificate, key in _PAIRS for name in (certificate, key)]
    paths = [config.get(name).strip() for name in (*names, "smtpd_tls_CAfile", "smtpd_tls_CApath")]
    return sorted({path for path in (*paths, *config.words("smtpd_tls_chain_files")) if path.startswith("/")})

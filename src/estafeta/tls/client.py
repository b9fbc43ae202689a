"""The client's side: contexts for the levels of smtp_tls_security_level, sessions that are resumed, and the verdict on a server.

Source: postconf(5) smtp_tls_*, TLS_README. Contexts are made with the master's privileges; a policy's own protocols and ciphers are
set on the single connection. Invariant: a session is resumed only under the context, peer and policy that it was made for.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from estafeta.config.config import Config
from estafeta.tls.certificate import DIGESTS, matched_name
from estafeta.tls.key_files import TlsSetupError, load_authorities, load_chains, load_pair
from estafeta.tls.library import library
from estafeta.tls.options import set_ciphers, set_common_options, set_protocols
from estafeta.tls.pipe import TlsPipe
from estafeta.tls.policy import ClientPolicy, bare_name, fingerprint_matches, wanted_names
from estafeta.tls.protocols import cipher_list, exclusions, parse_protocols
from estafeta.tls.server import log_level
from estafeta.tls.summary import Summary

_MOST_SESSIONS = 2000
_PAIRS = (
    ("RSA", "smtp_tls_cert_file", "smtp_tls_key_file"),
    ("DSA", "smtp_tls_dcert_file", "smtp_tls_dkey_file"),
    ("ECDSA", "smtp_tls_eccert_file", "smtp_tls_eckey_file"),
)
Namer = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the server's certificate is worth: ``word`` starts the log line, ``complaint`` is for the log, ``refusal`` for mail."""

    word: str
    complaint: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a connection is meant for."""

    destination: str
    host: str
    address: str
    port: int


class ClientTls:
    """All that smtp(8) or lmtp(8) needs for TLS. ``own`` gives the lmtp_ name of an smtp_ parameter. Raises TlsSetupError."""

    def __init__(self, config: Config, own: Namer) -> None:
        self._config = config
        self._own = own
        self.log_level = log_level(config.get(own("smtp_tls_loglevel")))
        self.reuse = config.bool(own("smtp_tls_connection_reuse"))
        self.digest = config.get(own("smtp_tls_fingerprint_digest")).strip().lower()
        if self.digest not in DIGESTS:
            raise config.error(own("smtp_tls_fingerprint_digest"), f'unknown digest algorithm "{self.digest}"')
        self._match = {
            "verify": tuple(_list(config.get(own("smtp_tls_verify_cert_match")))),
            "secure": tuple(_list(config.get(own("smtp_tls_secure_cert_match")))),
            "fingerprint": tuple(config.get(own("smtp_tls_fingerprint_cert_match")).replace("|", " ").replace(",", " ").split()),
        }
        self._server_name = config.get(own("smtp_tls_servername")).strip()
        self._many_labels = config.bool("tls_wildcard_matches_multiple_labels")
        lifetime = config.seconds(own("smtp_tls_session_cache_timeout"))
        self._lifetime_s = lifetime if config.get(own("smtp_tls_session_cache_database")).strip() else 0.0
        self._sessions: dict[object, tuple[float, ssl.SSLSession]] = {}
        anchors = config.words(own("smtp_tls_trust_anchor_file"))
        self._contexts = {kind: self._open(kind, anchors) for kind in ("may", "encrypt", "secure")}
        self._anchored: dict[tuple[str, ...], ssl.SSLContext] = {}

    def _open(self, kind: str, anchors: list[str]) -> ssl.SSLContext:
        config, own = self._config, self._own
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # OpenSSL follows the chain all the same; its result is asked for afterwards
        name = own("smtp_tls_protocols" if kind == "may" else "smtp_tls_mandatory_protocols")
        set_protocols(context, config.get(name), name)
        name = own("smtp_tls_ciphers" if kind == "may" else "smtp_tls_mandatory_ciphers")
        set_ciphers(context, config, config.get(name), self._excluded(kind, None), name)
        set_common_options(context, config, curves=config.get("tls_eecdh_auto_curves"))
        chains = config.words(own("smtp_tls_chain_files"))
        if chains:
            load_chains(context, chains)
        else:
            for title, certificate_name, key_name in _PAIRS:
                certificate = config.get(own(certificate_name)).strip()
                if certificate:
                    load_pair(context, title, certificate, config.get(own(key_name)).strip())
        if anchors:
            self._anchor(context, anchors)
        else:
            load_authorities(
                context,
                config.get(own("smtp_tls_CAfile")).strip(),
                config.get(own("smtp_tls_CApath")).strip(),
                default=config.bool("tls_append_default_CA"),
            )
        library().set_verify_depth(context, config.int(own("smtp_tls_scert_verifydepth")))
        return context

    @staticmethod
    def _anchor(context: ssl.SSLContext, paths: list[str] | tuple[str, ...]) -> None:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # an anchor need not be a root
        for path in paths:
            load_authorities(context, path, "", default=False)

    def _excluded(self, kind: str, own_words: str | None) -> list[str]:
        config, own = self._config, self._own
        if own_words is None:
            own_words = config.get(own("smtp_tls_mandatory_exclude_ciphers")) if kind != "may" else ""
        return exclusions(config.get(own("smtp_tls_exclude_ciphers")), own_words, "aNULL" if kind == "secure" else "")

    # -- connections --------------------------------------------------------------------------------------------------

    def key(self, policy: ClientPolicy) -> object:
        """Connections with the same key may serve the same mail."""
        return policy

    def reuses(self, policy: ClientPolicy) -> bool:
        """Whether an encrypted connection is kept for further mail."""
        return self.reuse if policy.reuse is None else policy.reuse

    def open(self, policy: ClientPolicy, target: Target) -> TlsPipe:
        """A pipe to shake hands with. Raises TlsSetupError for a policy that cannot be followed."""
        kind = "secure" if policy.authenticated else "encrypt" if policy.mandatory else "may"
        context = self._contexts[kind]
        if policy.trust_anchors:
            known = self._anchored.get(policy.trust_anchors)
            if known is None:
                known = self._open(kind, list(policy.trust_anchors))
                self._anchored[policy.trust_anchors] = known
            context = known
        session = None
        if self._lifetime_s:
            found = self._sessions.get(self._session_key(policy, target))
            if found is not None and found[0] > time.monotonic():
                session = found[1]
        pipe = TlsPipe(context, server_side=False, server_name=self._name_for(policy, target), session=session)
        if policy.protocols or policy.ciphers or policy.exclude is not None:
            self._restrict(pipe, policy, kind)
        return pipe

    def _restrict(self, pipe: TlsPipe, policy: ClientPolicy, kind: str) -> None:
        shim = library()
        try:
            if policy.protocols:
                shim.restrict_protocols(pipe.link, parse_protocols(policy.protocols).allowed)
        except ValueError as error:
            raise TlsSetupError(str(error)) from None
        if policy.ciphers or policy.exclude is not None:
            name = self._own("smtp_tls_ciphers" if kind == "may" else "smtp_tls_mandatory_ciphers")
            grade = (policy.ciphers or self._config.get(name)).strip().lower()
            base = self._config.lookup(f"tls_{grade}_cipherlist")
            excluded = self._excluded(kind, policy.exclude)
            if base is None or not shim.restrict_ciphers(pipe.link, cipher_list(base, excluded)):
                raise TlsSetupError(f'invalid ciphers: grade "{grade}", excluded "{" ".join(excluded)}"')

    def _name_for(self, policy: ClientPolicy, target: Target) -> str | None:
        name = policy.server_name or self._server_name
        if name == "hostname":
            name = target.host
        elif name == "nexthop":
            name = bare_name(target.destination)
        return name or None

    def _session_key(self, policy: ClientPolicy, target: Target) -> object:
        return (policy, target.host, target.address, target.port, self._name_for(policy, target))

    def remember(self, pipe: TlsPipe, policy: ClientPolicy, target: Target) -> None:
        """Keep the session of a good connection, to resume it with the next one."""
        if not self._lifetime_s:
            return
        session = pipe.link.session
        if session is None or (not session.has_ticket and not session.id):
            return
        if len(self._sessions) >= _MOST_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        key = self._session_key(policy, target)
        self._sessions.pop(key, None)
        self._sessions[key] = (time.monotonic() + self._lifetime_s, session)

    # -- the verdict --------------------------------------------------------------------------------------------------

    def judge(self, summary: Summary, policy: ClientPolicy, target: Target) -> Verdict:
        """Is this the server that ``policy`` wants?"""
        if not policy.authenticated:
            return Verdict(summary.status)
        certificate = summary.certificate
        if certificate is None:
            return Verdict("Anonymous", "", "Server certificate not trusted")
        match = policy.match or self._match[policy.level]
        if policy.level == "fingerprint":
            if fingerprint_matches(match, certificate.fingerprint, certificate.pubkey_fingerprint):
                return Verdict("Verified")
            return Verdict("Untrusted", "num=1:unspecified certificate verification error", "Server certificate not verified")
        if summary.verify_result != 0:
            words = library().verify_text(summary.verify_result)
            return Verdict("Untrusted", f"num={summary.verify_result}:{words}", "Server certificate not trusted")
        wanted = wanted_names(match, bare_name(target.destination), target.host)
        if matched_name(wanted, certificate.names, many_labels=self._many_labels) is not None:
            return Verdict("Verified")
        is_address = any(name.replace(".", "").isdigit() or ":" in name for name in wanted)
        words = "num=64:IP address mismatch" if is_address else "num=62:hostname mismatch"
        return Verdict("Untrusted", words, "Server certificate not verified")


def _list(text: str) -> list[str]:
    return text.replace(",", " ").replace(":", " ").split()


def client_files(config: Config, own: Namer) -> list[str]:
    """The files whose change calls for new contexts."""
    names = [own(name) for _, certificate, key in _PAIRS for name in (certificate, key)]
    paths = [config.get(name).strip() for name in (*names, own("smtp_tls_CAfile"), own("smtp_tls_CApath"))]
    paths += config.words(own("smtp_tls_chain_files")) + config.words(own("smtp_tls_trust_anchor_file"))
    return sorted({path for path in paths if path.startswith("/")})

"""check_policy_service: a server outside decides.

Source: SMTPD_POLICY_README, postconf(5) smtpd_policy_service_*. The answer may be any access(5) action; no answer is
smtpd_policy_service_default_action.
"""

from __future__ import annotations

import re
import socket

from estafeta.clients.policy import PolicyClient, PolicyConnection, PolicyFailed, PolicySettings, parse_endpoint
from estafeta.config.errors import ConfigError
from estafeta.config.values import parse_int, parse_time, split_words
from estafeta.daemons.smtpd.access.actions import TableActions
from estafeta.daemons.smtpd.access.generic import Maker
from estafeta.daemons.smtpd.access.tools import Tools
from estafeta.daemons.smtpd.access.verdict import Check, Result, Scene
from estafeta.mail.address import quote_address
from estafeta.mail.text import to_text

_OPTION = re.compile(r"([a-z_]+)\s*=\s*(.*)", re.DOTALL)


class Delegated:
    """See the module."""

    def __init__(self, tools: Tools, actions: TableActions) -> None:
        config = tools.config
        self._tools = tools
        self._actions = actions
        self._stress = config.get("stress")
        self._defaults: dict[str, str] = {
            "timeout": str(int(config.seconds("smtpd_policy_service_timeout"))),
            "max_idle": str(int(config.seconds("smtpd_policy_service_max_idle"))),
            "max_ttl": str(int(config.seconds("smtpd_policy_service_max_ttl"))),
            "try_limit": str(config.int("smtpd_policy_service_try_limit")),
            "retry_delay": str(int(config.seconds("smtpd_policy_service_retry_delay"))),
            "request_limit": str(config.int("smtpd_policy_service_request_limit")),
            "default_action": config.get("smtpd_policy_service_default_action"),
            "policy_context": config.get("smtpd_policy_service_policy_context"),
        }
        self._clients: dict[str, PolicyClient] = {}
        self.makers: dict[str, Maker] = {"check_policy_service": self._make}

    def _make(self, argument: str) -> Check:
        endpoint, options = self._parse(argument)
        client = self._clients.get(argument)
        if client is None:
            client = self._clients[argument] = self._client(argument, endpoint, options)
        default, context = options["default_action"], options["policy_context"]
        key = ("policy", argument)

        async def check(scene: Scene) -> Result:
            memory = scene.facts.memory
            last = memory.get(key)
            preferred = last if isinstance(last, PolicyConnection) else None
            try:
                action, memory[key] = await client.ask(self.attributes(scene, context), preferred)
            except PolicyFailed as error:
                self._tools.warn(str(error))
                action = default
            return await self._actions.run(scene, f"policy:{endpoint}", action)

        return check

    def _parse(self, argument: str) -> tuple[str, dict[str, str]]:
        options = dict(self._defaults)
        words = split_words(argument[1:-1]) if argument.startswith("{") else [argument]
        if argument.startswith("{"):
            words = _joined(words)
        for word in words[1:]:
            inner = word[1:-1].strip() if word.startswith("{") else word
            found = _OPTION.fullmatch(inner)
            if found is None or found[1] not in options:
                raise ConfigError(f'check_policy_service {argument}: bad option "{word}"')
            options[found[1]] = found[2].strip()
        return words[0] if words else "", options

    def _client(self, argument: str, endpoint: str, options: dict[str, str]) -> PolicyClient:
        try:
            kind, _, port = parse_endpoint(endpoint)
            number = 0
            if kind == "inet":
                number = int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
            settings = PolicySettings(
                timeout_s=parse_time(options["timeout"]), max_idle_s=parse_time(options["max_idle"]),
                max_ttl_s=parse_time(options["max_ttl"]), try_limit=max(1, parse_int(options["try_limit"])),
                retry_delay_s=parse_time(options["retry_delay"]), request_limit=parse_int(options["request_limit"]),
            )  # fmt: skip
        except (ValueError, OSError) as error:
            raise ConfigError(f"check_policy_service {argument}: {error}") from None
        return PolicyClient(endpoint, number, settings, self._addresses)

    async def _addresses(self, host: str) -> list[str]:
        return list((await self._tools.dns().addresses(host)).addresses)

    @property
    def is_used(self) -> bool:
        """True if any list names a policy server."""
        return bool(self._clients)

    def close(self) -> None:
        """End the idle connections."""
        for client in self._clients.values():
            client.close()

    def attributes(self, scene: Scene, context: str) -> list[tuple[str, str]]:
        """The request, attributes in Postfix's order."""
        facts = scene.facts
        return [
            ("request", "smtpd_access_policy"),
            ("protocol_state", scene.command),
            ("protocol_name", "ESMTP" if facts.esmtp else "SMTP"),
            ("client_address", facts.client_address),
            ("client_name", facts.client_name),
            ("client_port", facts.client_port),
            ("reverse_client_name", facts.reverse_name),
            ("server_address", facts.server_address),
            ("server_port", facts.server_port),
            ("helo_name", facts.helo),
            ("sender", to_text(quote_address(facts.sender)) if facts.sender else ""),
            ("recipient", to_text(quote_address(facts.recipient)) if facts.recipient else ""),
            ("recipient_count", str(facts.recipient_count if scene.stage in ("data", "end_of_data") else 0)),
            ("queue_id", facts.queue_id),
            ("instance", facts.instance),
            ("size", str(facts.size)),
            ("etrn_domain", facts.etrn_domain),
            ("stress", self._stress),
            ("sasl_method", facts.sasl_method),
            ("sasl_username", facts.sasl_username),
            ("sasl_sender", facts.sasl_sender),
            ("ccert_subject", xtext(facts.ccert_subject)),
            ("ccert_issuer", xtext(facts.ccert_issuer)),
            ("ccert_fingerprint", facts.ccert_fingerprint),
            ("ccert_pubkey_fingerprint", facts.ccert_pubkey_fingerprint),
            ("encryption_protocol", facts.tls_protocol),
            ("encryption_cipher", facts.tls_cipher),
            ("encryption_keysize", str(facts.tls_keysize)),
            ("policy_context", context),
        ]


def xtext(text: str) -> str:
    """RFC 3461 xtext, as the certificate's names are sent."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(b) if 33 <= b <= 126 and b not in b"+=" else f"+{b:02X}" for b in data)


def _joined(words: list[str]) -> list[str]:
    """``name = value`` written with blanks is one option."""
    out: list[str] = []
    for word in words:
        if len(out) > 1 and (word.startswith("=") or out[-1].endswith("=")):
            out[-1] += word
        else:
            out.append(word)
    return out

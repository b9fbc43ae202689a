"""Whose mail is ours: local_header_rewrite_clients, and whose bare line feeds are accepted (smtpd_forbid_bare_newline_exclusions).

Source: postconf(5). The list is walked for each message, because a client may log in between two of them; what depends on the
address alone is found once. A table that cannot be asked gives LookupFailed.
"""

from __future__ import annotations

from estafeta.config.config import Config
from estafeta.config.values import split_words
from estafeta.daemons.smtpd.access.verdict import Facts
from estafeta.service.own_addresses import own_addresses
from estafeta.tables.maps import Maps
from estafeta.tables.match_list import AddressList, NamadrList, StringList
from estafeta.tables.table import OpenOptions


class LocalClients:
    """See the module. Raises ConfigError for a word that postconf(5) does not have."""

    def __init__(self, config: Config, options: OpenOptions) -> None:
        name = "local_header_rewrite_clients"
        self._own: frozenset[str] = frozenset()
        self._networks: AddressList | None = None
        self._certificates: StringList | None = None
        self._logged_in = self._any_certificate = False
        tables: list[str] = []
        words = iter(split_words(config.get(name)))
        for word in words:
            match word.lower():
                case "permit_inet_interfaces":
                    self._own = own_addresses(config)
                case "permit_mynetworks":
                    self._networks = AddressList(config.get("mynetworks"), options, "mynetworks")
                case "permit_sasl_authenticated":
                    self._logged_in = True
                case "permit_tls_clientcerts":
                    self._certificates = StringList(config.get("relay_clientcerts"), options, "relay_clientcerts")
                case "permit_tls_all_clientcerts":
                    self._any_certificate = True
                case "check_address_map":
                    tables.append(next(words, ""))
                case _:
                    tables.append(word)
        for table in tables:
            if ":" not in table:
                raise config.error(name, f'bad request "{table}": a permission or a table (type:name) is expected')
        self._table = Maps(tables, options, name) if tables else None
        exclusions = "smtpd_forbid_bare_newline_exclusions"
        parents = config.words("parent_domain_matches_subdomains")
        self._bare_newline = NamadrList(config.get(exclusions), options, exclusions, match_parents=exclusions in parents)

    async def match(self, facts: Facts) -> bool:
        """Are headers of this client's mail rewritten as those of our own users? Raises LookupFailed."""
        address = facts.client_address
        if address in self._own:
            return True
        if self._networks is not None and await self._networks.match(address):
            return True
        if (self._logged_in and facts.sasl_username) or (self._any_certificate and facts.ccert_trusted):
            return True
        if self._certificates is not None:
            for fingerprint in (facts.ccert_fingerprint, facts.ccert_pubkey_fingerprint):
                if fingerprint and await self._certificates.match(fingerprint):
                    return True
        return self._table is not None and await self._table.find(address) is not None

    async def may_send_bare_newlines(self, facts: Facts) -> bool:
        """Raises LookupFailed."""
        return await self._bare_newline.match(facts.client_name, facts.client_address)

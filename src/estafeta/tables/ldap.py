"""ldap: tables.

Source: ldap_table(5). Certificates and keys are read when the table is opened, before the jail. Referrals are not followed.
"""

from __future__ import annotations

import ssl
from urllib.parse import unquote

from estafeta.tables import ldap_message as ldap
from estafeta.tables.ldap_connection import LdapConnection, Login, log_in
from estafeta.tables.pool import Pool
from estafeta.tables.servers import Server, parse_server, tls_context
from estafeta.tables.source import Source
from estafeta.tables.table import LookupFailed, OpenOptions, TableError
from estafeta.tables.template import Shape

_ANY = ldap.parse_filter("(objectClass=*)")
_MECHANISMS = ("EXTERNAL", "PLAIN")


class _Attributes:
    """The result attributes of a table, by kind; names are compared without case."""

    def __init__(self, source: Source) -> None:
        def names(parameter: str, default: str = "") -> list[str]:
            return source.words(parameter, default)

        plain, special = names("result_attribute", "maildrop"), names("special_result_attribute")
        terminal, leaf = names("terminal_result_attribute"), names("leaf_result_attribute")
        self.all = tuple(dict.fromkeys((*plain, *special, *terminal, *leaf)))
        self.plain = frozenset(name.lower() for name in plain)
        self.special = frozenset(name.lower() for name in special)
        self.terminal = frozenset(name.lower() for name in terminal)
        self.leaf = frozenset(name.lower() for name in leaf)

    def within(self, wanted: tuple[str, ...]) -> tuple[str, ...]:
        """Those that a URL asks for too; sub-type options that only one side has are asked for."""
        if not wanted:
            return self.all
        found = []
        for name in self.all:
            for other in wanted:
                mine, theirs = name.lower(), other.lower()
                if mine == theirs or theirs.partition(";")[0] == mine:
                    found.append(other)
                elif mine.partition(";")[0] == theirs:
                    found.append(name)
        return tuple(dict.fromkeys(found))


class LdapTable:
    """See the module."""

    is_pattern = False

    def __init__(self, name: str, options: OpenOptions) -> None:
        """Raises TableError."""
        source = Source("ldap", name, options)
        self.name = f"ldap:{name}"
        for ignored in ("cache", "cache_expiry", "cache_size", "tls_cipher_suite", "chase_referrals"):
            if source.get(ignored) not in (None, "", "0", "no"):
                options.warn(f"{self.name}: {ignored} is ignored")
        obsolete = source.get("result_format") is None and source.get("result_filter") is not None
        self._shape = Shape(source, options, "result_filter" if obsolete else "result_format")
        self._base = self._shape.template(source.text("search_base"))
        self._filter = self._shape.template(source.text("query_filter", "(mailacceptinggeneralid=%s)", 1))
        try:
            ldap.parse_filter(self._filter.expand("a.b.c.d.e.f.g.h.i@a.b.c.d.e.f.g.h.i", "a@a.b.c.d.e.f.g.h.i") or "(a=b)")
        except ldap.Malformed as error:
            raise TableError(f"{name}: query_filter: {error}") from None
        scope = source.text("scope", "sub", 1)
        if scope not in ldap.SCOPES:
            raise TableError(f'{name}: bad scope "{scope}": need sub, base or one')
        self._attributes = _Attributes(source)
        limit = source.number("expansion_limit", 0)
        self._template = ldap.Search(
            "", ldap.SCOPES[scope], b"", self._attributes.all, source.number("size_limit", limit),
            source.number("dereference", 0, 0, 3), source.number("timeout", 10, 1),
        )  # fmt: skip
        self._depth = source.number("recursion_limit", 1000, 1)
        login, servers = _login(source), _servers(source)
        if login.tls is None and any(server.options == "ldaps" for server in servers):
            raise TableError(f"{name}: ldaps: needs version = 3")

        async def connect(server: Server) -> LdapConnection:
            return await log_in(server, login)

        self._pool: Pool[ldap.Search, list[ldap.Entry]] = Pool(
            self.name, servers, connect, warn=options.warn, time_limit_s=float(self._template.seconds), in_order=True
        )

    async def lookup(self, key: str) -> str | None:
        """The values that the search and what it refers to give; raises LookupFailed."""
        asked = await self._shape.key(key)
        if asked is None:
            return None
        base = self._base.expand(asked, asked, ldap.quote_name)
        text = self._filter.expand(asked, asked, ldap.quote_filter)
        if base is None or text is None:
            return None
        found: list[str] = []
        await self._search(self._template._replace(base=base, filter=self._parsed(text)), found, 0)
        return self._shape.results(asked, found)

    def _parsed(self, text: str) -> bytes:
        try:
            return ldap.parse_filter(text)
        except ldap.Malformed as error:
            raise LookupFailed(self.name, f"filter: {error}") from None

    async def _search(self, request: ldap.Search, found: list[str], depth: int) -> None:
        if depth > self._depth:
            raise LookupFailed(self.name, f"recursion_limit of {self._depth} is exceeded")
        for entry in await self._pool.ask(request):
            await self._entry(request, entry, found, depth)

    async def _entry(self, request: ldap.Search, entry: ldap.Entry, found: list[str], depth: int) -> None:
        kinds = self._attributes
        named = [(name.lower(), values) for name, values in entry.attributes if values]
        terminal = any(_in(name, kinds.terminal) for name, _ in named)
        leaf = not any(_in(name, kinds.special) for name, _ in named)
        for name, values in named:
            if terminal:
                if _in(name, kinds.terminal):
                    found += values
            elif _in(name, kinds.special):
                for value in values:
                    await self._follow(request, value, found, depth)
            elif _in(name, kinds.plain) or (leaf and _in(name, kinds.leaf)):
                found += values

    async def _follow(self, request: ldap.Search, value: str, found: list[str], depth: int) -> None:
        if not ldap.is_url(value):
            step = request._replace(base=value, scope=0, filter=_ANY, attributes=self._attributes.all)
        else:
            try:
                url = ldap.parse_url(value)
                attributes = self._attributes.within(url.attributes)
                if not attributes:
                    return
                step = request._replace(
                    base=url.base, scope=url.scope, filter=ldap.parse_filter(url.filter), attributes=attributes
                )
            except ldap.Malformed as error:
                raise LookupFailed(self.name, f"malformed URL {value}: {error}") from None
        await self._search(step, found, depth + 1)

    def close(self) -> None:
        """Close the connections."""
        self._shape.close()
        self._pool.close()


def _in(name: str, names: frozenset[str]) -> bool:
    return name in names or (";" in name and name.partition(";")[0] in names)


def _servers(source: Source) -> list[Server]:
    port = source.number("server_port", 389, 1, 65535)
    servers = []
    for word in source.words("server_host", "localhost"):
        scheme, found, rest = word.partition("://")
        if not found:
            servers.append(parse_server(word, port))
            continue
        place = unquote(rest.partition("/")[0])
        if scheme == "ldapi":
            servers.append(Server(path=unquote(rest).rstrip("/") or "/run/slapd/ldapi"))
        elif scheme in ("ldap", "ldaps"):
            default = 636 if scheme == "ldaps" else port
            servers.append(parse_server(place or "localhost", default)._replace(options=scheme))
        else:
            raise TableError(f'{source.name}: bad URL "{word}" in server_host')
    return servers


def _login(source: Source) -> Login:
    how = source.text("bind", "yes").lower()
    if how not in ("yes", "no", "none", "simple", "sasl"):
        raise TableError(f"{source.name}: unsupported bind type: {how}")
    version = source.number("version", 3, 2, 3)
    start_tls = source.flag("start_tls", False)
    if start_tls and version < 3:
        raise TableError(f"{source.name}: start_tls requires version = 3")
    mechanism = ""
    if how == "sasl":
        wanted = [word.upper() for word in source.words("sasl_mechs")]
        mechanism = next((word for word in wanted if word in _MECHANISMS), "")
        if not mechanism:
            raise TableError(
                f"{source.name}: none of the SASL mechanisms in sasl_mechs is supported (there are {', '.join(_MECHANISMS)})"
            )
    tls: ssl.SSLContext | None = None
    if start_tls or "ldaps://" in source.text("server_host").lower():
        verify = source.flag("tls_require_cert", False)
        tls = tls_context(
            ca_file=source.text("tls_ca_cert_file"), ca_path=source.text("tls_ca_cert_dir"), cert=source.text("tls_cert"),
            key=source.text("tls_key"), verify=verify,
        )  # fmt: skip
    return Login(
        bind=how not in ("no", "none"), name=source.text("bind_dn"), password=source.text("bind_pw"), version=version,
        sasl=mechanism, authorize=source.text("sasl_authz_id"), start_tls=start_tls, tls=tls,
    )  # fmt: skip

"""pgsql: tables: their parameters.

Source: pgsql_table(5); the PostgreSQL manual, "Connection URIs". TLS as libpq has it without being told: used when a server on
TCP offers it, not verified; a URI can say otherwise with sslmode and sslrootcert. Files are read when the table is opened.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from estafeta.tables.pgsql_protocol import Login, PgsqlConnection, log_in
from estafeta.tables.servers import Server, parse_server, split_port, tls_context
from estafeta.tables.source import Source
from estafeta.tables.sql_table import SqlTable
from estafeta.tables.table import OpenOptions, TableError

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def open_pgsql(name: str, options: OpenOptions) -> SqlTable:
    """Open ``pgsql:name``; raises TableError."""
    source = Source("pgsql", name, options)
    words = source.words("hosts") or ["localhost"]
    dbname = source.text("dbname", "", 0 if all("://" in word for word in words) else 1)
    user, password = source.text("user"), source.text("password")
    encoding = source.text("encoding", "UTF8")
    servers: list[Server] = []
    for word in words:
        if word.startswith(("postgresql://", "postgres://")):
            servers += _from_uri(word, user, password, dbname, encoding)
            continue
        login = Login(user or _own_name(), password, dbname, encoding)
        server = parse_server(word, 5432)
        if server.path:
            server = server._replace(path=_socket(server.path, 5432))
        else:
            login = Login(login.user, password, dbname, encoding, tls_context())
        servers.append(server._replace(options=login))

    async def connect(server: Server) -> PgsqlConnection:
        assert isinstance(server.options, Login)
        return await log_in(server, server.options)

    return SqlTable(source, options, servers, connect)


def _socket(path: str, port: int) -> str:
    """PostgreSQL names the directory of its socket; the socket itself is taken too."""
    return path if "/.s.PGSQL." in path else f"{path.rstrip('/')}/.s.PGSQL.{port}"


def _own_name() -> str:
    import os
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise TableError("no user is given, and this process's user has no name") from None


def _from_uri(uri: str, user: str, password: str, dbname: str, encoding: str) -> list[Server]:
    try:
        parts = urlsplit(uri)
        query = dict(parse_qsl(parts.query))
    except ValueError as error:
        raise TableError(f'bad connection URI "{uri}": {error}') from None
    login, at, hosts = parts.netloc.rpartition("@")
    if at:
        name, colon, secret = login.partition(":")
        user = unquote(name) or user
        password = unquote(secret) if colon else password
    mode = query.get("sslmode", "prefer")
    if mode not in _MODES:
        raise TableError(f'bad sslmode "{mode}" in the connection URI')
    tls = None
    if mode not in ("disable", "allow"):
        ca_file = query.get("sslrootcert", "")
        verify = mode.startswith("verify") or (mode == "require" and bool(ca_file))
        tls = tls_context(
            ca_file=ca_file, cert=query.get("sslcert", ""), key=query.get("sslkey", ""), verify=verify, names=mode == "verify-full"
        )
    user = query.get("user", user) or _own_name()
    options = Login(
        user, query.get("password", password), unquote(parts.path.lstrip("/")) or query.get("dbname", "") or dbname or user,
        encoding, tls, mode in _MODES[3:],
    )  # fmt: skip
    port = query.get("port", "5432")
    servers = []
    for host in (hosts or query.get("host", "localhost")).split(","):
        place, number = split_port(host, port) if not host.startswith("/") else (host, int(port))
        place = unquote(place)
        if place.startswith("/"):
            servers.append(Server(path=_socket(place, number), options=options))
        else:
            servers.append(Server("", place, number, options))
    return servers

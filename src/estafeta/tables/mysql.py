"""mysql: tables: their parameters.

Source: mysql_table(5). Options files, certificates and keys are read when the table is opened, before the jail.
"""

from __future__ import annotations

import ssl

from estafeta.tables.mysql_options import read_options
from estafeta.tables.mysql_protocol import Login, MysqlConnection, log_in
from estafeta.tables.servers import Server, parse_server, tls_context
from estafeta.tables.source import Source
from estafeta.tables.sql_table import SqlTable
from estafeta.tables.table import OpenOptions

_SOCKET = "/run/mysqld/mysqld.sock"


def open_mysql(name: str, options: OpenOptions) -> SqlTable:
    """Open ``mysql:name``; raises TableError."""
    source = Source("mysql", name, options)
    dbname = source.text("dbname", "", 1)
    given: dict[str, str] = {}
    file, group = source.text("option_file"), source.text("option_group", "client")
    if file or group:
        given = read_options(file, frozenset(("client", group)))
    login = Login(
        source.text("user") or given.get("user", ""),
        source.text("password") or given.get("password", ""),
        dbname,
        source.text("charset", "utf8mb4"),
        _tls(source, given),
    )

    async def connect(server: Server) -> MysqlConnection:
        return await log_in(server, login)

    socket = given.get("socket", _SOCKET)
    port = given.get("port", "3306")
    servers = []
    for word in source.words("hosts") or [given.get("host", "localhost")]:
        server = parse_server(word, port)
        # As the client library has it: this name means the socket.
        servers.append(Server(path=socket) if server.host == "localhost" else server)
    return SqlTable(source, options, servers, connect, needs_result=source.flag("require_result_set", True))


def _tls(source: Source, given: dict[str, str]) -> ssl.SSLContext | None:
    ca_file = source.text("tls_CAfile") or given.get("ssl-ca", "")
    ca_path = source.text("tls_CApath") or given.get("ssl-capath", "")
    cert = source.text("tls_cert_file") or given.get("ssl-cert", "")
    key = source.text("tls_key_file") or given.get("ssl-key", "")
    verify = source.flag("tls_verify_cert", False)
    if not (ca_file or ca_path or cert or key or verify):
        return None
    # A certification authority that is named is one that the server's certificate must come from.
    return tls_context(
        ca_file=ca_file, ca_path=ca_path, cert=cert, key=key, verify=verify or bool(ca_file or ca_path), names=verify
    )

"""Mail by tables in MariaDB, PostgreSQL and OpenLDAP: it flows, waits while a server is away, and flows again; slow servers hold up nobody."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.databases import MariaDb, Postgres, Server, Slapd, postgres_programs
from support.instance import MASTER_CF, Client, Instance, wait_for

pytestmark = pytest.mark.xdist_group("external_tables")

ENTRIES = """\
dn: dc=example,dc=org
objectClass: domain
dc: example

dn: uid=real,dc=example,dc=org
objectClass: inetOrgPerson
uid: real
cn: real
sn: real
mail: real@box.test
description: real/
"""


@pytest.fixture
def servers() -> Iterator[dict[str, Server]]:
    for program in ("mariadbd", "mariadb-install-db", "slapd", "slapadd"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"{program} is not installed (make peers)")
    if postgres_programs() is None or os.geteuid() != 0:
        pytest.skip("needs PostgreSQL, and root to start the servers")
    with ExitStack() as stack:
        mariadb, postgres, slapd = MariaDb(), Postgres(), Slapd(ENTRIES)
        found: dict[str, Server] = {"mysql": mariadb, "pgsql": postgres, "ldap": slapd}
        for server in found.values():
            stack.callback(shutil.rmtree, server.top)
            stack.callback(server.stop)
            server.start()
        mariadb.sql("CREATE DATABASE mail; CREATE USER mail@'127.0.0.1' IDENTIFIED BY 'pw'; GRANT ALL ON mail.* TO mail@'127.0.0.1';"
                    "USE mail; CREATE TABLE a (k VARCHAR(99), v VARCHAR(99)); INSERT INTO a VALUES ('alias@box.test', 'real@box.test');")  # fmt: skip
        postgres.sql("CREATE USER mail PASSWORD 'pw'", "postgres")
        postgres.sql("CREATE DATABASE mail OWNER mail", "postgres")
        postgres.sql("CREATE TABLE t (k text, v text); GRANT ALL ON t TO mail; INSERT INTO t VALUES ('gone.test', 'discard:');")
        yield found


def _tables(instance: Instance, servers: dict[str, Server]) -> None:
    ports = {kind: server.port for kind, server in servers.items()}  # type: ignore[attr-defined]
    login = "user = mail\npassword = pw\ndbname = mail\n"
    texts = {
        "mysql": f"{login}hosts = 127.0.0.1:{ports['mysql']}\nquery = SELECT v FROM a WHERE k = '%s'\n",
        "pgsql": f"{login}hosts = 127.0.0.1:{ports['pgsql']}\nquery = SELECT v FROM t WHERE k = '%s'\n",
        "ldap": f"server_host = ldap://127.0.0.1:{ports['ldap']}\nsearch_base = dc=example,dc=org\n"
                "query_filter = mail=%s\nresult_attribute = description\n",
    }  # fmt: skip
    for kind, text in texts.items():
        instance.write(f"{kind}.cf", text).chmod(0o600)  # read as root, before privileges are dropped


SETTINGS = """\
virtual_alias_maps = mysql:$config_directory/mysql.cf
transport_maps = pgsql:$config_directory/pgsql.cf
virtual_mailbox_maps = proxy:ldap:$config_directory/ldap.cf
"""


def _rcpt(instance: Instance, address: bytes) -> bytes:
    with Client(instance.port) as client:
        client.reply()
        client.ask(b"EHLO x")
        client.ask(b"MAIL FROM:<a@test.example>")
        return client.ask(b"RCPT TO:<" + address + b">")


def test_servers_go_and_come_back(servers: dict[str, Server]) -> None:
    instance = Instance(SETTINGS, MASTER_CF.replace("pickup unix n - n 60", "pickup unix n - n 1"))
    _tables(instance, servers)
    try:
        instance.start()
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            assert client.send(b"a@test.example", [b"alias@box.test"], b"Subject: 1\r\n\r\nx").startswith(b"250 ")
            assert client.send(b"a@test.example", [b"x@gone.test"], b"Subject: 2\r\n\r\nx").startswith(b"250 ")
        wait_for(lambda: len(instance.mailbox("real")) == 1, what="the first message")
        instance.wait_log(r"to=<x@gone.test>, relay=none,.* status=sent")
        assert _rcpt(instance, b"nobody@box.test").startswith(b"550 ")
        for count, (kind, server) in enumerate(servers.items(), 2):
            server.stop()
            # An address that was not asked for before: routes are remembered for a while.
            reply = _rcpt(instance, b"new-%s@box.test" % kind.encode())
            assert reply.startswith(b"451 4.3.0 "), (kind, reply)
            done = instance.command("sendmail", "-f", "a@test.example", "alias@box.test", input=f"Subject: {kind}\n\nx\n")
            assert done.returncode == 0, done.stderr
            if kind != "pgsql":
                assert len(instance.mailbox("real")) == count - 1, kind
            server.start()
            wait_for(lambda count=count: len(instance.mailbox("real")) == count, 40, f"mail after {kind} is back")  # type: ignore[misc]
            wait_for(lambda: _rcpt(instance, b"alias@box.test").startswith(b"250 "), 20, f"{kind} is asked again")
        assert "status=bounced" not in instance.log()
        wait_for(instance.queue_is_empty, what="an empty queue")
    finally:
        instance.stop()
    instance.remove()


def test_slow_server_holds_up_nobody(tmp_path: Path) -> None:
    """A server that takes connections and says nothing: sessions that ask it wait, others do not."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        instance = Instance("smtpd_recipient_restrictions = check_sender_access mysql:$config_directory/slow.cf, permit_mynetworks, reject\n")
        instance.write(
            "slow.cf", f"hosts = 127.0.0.1:{silent.getsockname()[1]}\ndbname = d\nquery = SELECT '%s'\ndomain = slow.example\n"
        )
        try:
            instance.start()
            waiting = []
            for _ in range(20):
                client = Client(instance.port)
                waiting.append(client)
                client.reply()
                client.ask(b"EHLO x")
                client.ask(b"MAIL FROM:<a@slow.example>")
                client.socket.sendall(b"RCPT TO:<u@box.test>\r\n")
            started = time.monotonic()
            with Client(instance.port) as quick:
                quick.reply()
                quick.ask(b"EHLO x")
                for number in range(20):
                    assert quick.send(b"a@quick.example", [b"u@box.test"], b"Subject: %d\r\n\r\nx" % number).startswith(b"250 ")
            assert time.monotonic() - started < 8, "others are held up"
            assert waiting[0].reply().startswith(b"451 4.3.")  # within the limit for a connection, 10 s
            for client in waiting:
                client.close()
        finally:
            instance.stop()
    instance.remove()

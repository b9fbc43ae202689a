"""External tables: Debian's postmap and ours ask the same real servers with the same files."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.databases import MariaDb, Memcached, Postgres, Slapd, postgres_programs

pytestmark = pytest.mark.xdist_group("external_tables")

TYPES = subprocess.run(["/usr/sbin/postconf", "-m"], capture_output=True, text=True, check=False).stdout.split() if Path(
    "/usr/sbin/postconf").exists() else []
PASSWORD = "it's secret"

KEYS = [
    "user@example.org", "USER@Example.Org", "two@example.org", "o'brien@example.org", 'quo"te@example.org', "back\\slash@example.org",
    "per%cent@example.org", "pa(re)n@example.org", "st*r@example.org", "*@example.org", "pärchen@example.org", "semi;--@example.org",
    "' OR '1'='1", "\\' OR 1=1 -- ", ")(mail=*", "nobody@example.org", "bare", "@example.org", "example.org", "user@", "user@elsewhere.net",
    "a@b@example.org", "user@deep.sub.example.org", "empty@example.org", "null@example.org", "x,y=z+#<>@example.org", " lead@example.org",
]  # fmt: skip

ROWS = [
    ("user@example.org", "user@mail.example.net"), ("two@example.org", "one@a.example"), ("two@example.org", "two@b.example"),
    ("o'brien@example.org", "brien"), ('quo"te@example.org', "quote"), ("back\\slash@example.org", "back"),
    ("per%cent@example.org", "per%cent"), ("pa(re)n@example.org", "paren"), ("st*r@example.org", "star"),
    ("pärchen@example.org", "pär"), ("semi;--@example.org", "semi"), ("bare", "bare-result"), ("@example.org", "catch@all.example"),
    ("example.org", "domain"), ("user@deep.sub.example.org", "deep"), ("null@example.org", None), ("a@b@example.org", "twice"),
    (" lead@example.org", "lead"),
]  # fmt: skip

SQL_FORMS = {
    "plain": "query = SELECT v FROM t WHERE k = '%s' ORDER BY v",
    "columns": "query = SELECT v, n FROM t WHERE k = '%s' ORDER BY v",
    "parts": "query = SELECT '%u|%d|%1|%2|%%'",
    "upper": "query = SELECT v FROM t WHERE k = '%U@%D' ORDER BY v",
    "three": "query = SELECT '%3'",
    "format": "query = SELECT v FROM t WHERE k = '%s' ORDER BY v\nresult_format = %u<%d<%S<%%",
    "format parts": "query = SELECT v FROM t WHERE k = '%s' ORDER BY v\nresult_format = smtp:[%s.%2.%1]%U",
    "domain": "query = SELECT v FROM t WHERE k = '%s' ORDER BY v\ndomain = example.org, inline:{ sub.example.org=x }",
    "old": "select_field = v\ntable = t\nwhere_field = k\nadditional_conditions = AND n > 0 ORDER BY v",
    "limit": "query = SELECT v FROM t WHERE k = '%s' ORDER BY v\nexpansion_limit = 1",
    "wrong": "query = SELEC v FROM t WHERE k = '%s'",
    "template": "query = SELECT v FROM t WHERE k = '%x'",
}  # fmt: skip


def need(kind: str, *programs: str) -> None:
    if kind not in TYPES:
        pytest.skip(f"Debian's Postfix has no {kind} tables (package postfix-{kind})")
    for program in programs:
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") is None:
            pytest.skip(f"{program} is not installed")
    if os.geteuid() != 0:
        pytest.skip("only root starts the servers as their users")


class Both:
    """The two postmap programs."""

    def __init__(self, etc: Path) -> None:
        self.etc = etc
        self.errors: list[str] = []
        (etc / "main.cf").write_text("compatibility_level = 3.6\n")

    def ask(self, spec: str, keys: list[str], *, only_ours: bool = False) -> tuple[object, object]:
        """Per program: the answers to all keys at once, and the status."""
        answers: list[object] = [None] if only_ours else []
        for argv in (["/usr/sbin/postmap"], [sys.executable, "-m", "estafeta.commands.postmap"])[only_ours:]:
            done = subprocess.run(
                [*argv, "-c", str(self.etc), "-q", "-", spec], input="".join(key + "\n" for key in keys).encode(),
                capture_output=True, timeout=60, check=False,
            )  # fmt: skip
            empty = sorted(set(re.findall(r"warning: (table .* -- ignored)", done.stderr.decode(errors="replace"))))
            self.errors.append(done.stderr.decode(errors="replace")[-600:])
            answers.append((done.returncode, done.stdout.decode(errors="surrogateescape").splitlines(), empty))
        return answers[0], answers[1]

    def compare(self, kind: str, form: str, text: str, keys: list[str]) -> tuple[int, list[str], list[str]]:
        """Assert that the answers are the same; what they are."""
        path = self.etc / f"{kind}-{re.sub(r'[^a-z]', '-', form)}.cf"
        path.write_text(text)
        theirs, ours = self.ask(f"{kind}:{path}", keys)
        assert ours == theirs, json.dumps({"form": form, "theirs": theirs, "ours": ours, "errors": self.errors[-2:]}, indent=1)
        assert isinstance(ours, tuple)
        return ours


@pytest.fixture
def both(tmp_path: Path) -> Both:
    return Both(tmp_path)


def sql_literal(text: str | None, backslash: bool) -> str:
    if text is None:
        return "NULL"
    text = text.replace("'", "''")
    return "'" + (text.replace("\\", "\\\\") if backslash else text) + "'"


def table(backslash: bool) -> str:
    values = ",".join(
        f"({sql_literal(k, backslash)},{sql_literal(v, backslash)},{number})" for number, (k, v) in enumerate(ROWS, 1)
    )
    return f"CREATE TABLE t (k VARCHAR(100), v VARCHAR(100), n INT); INSERT INTO t VALUES {values};"


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDb]:
    need("mysql", "mariadbd", "mariadb-install-db")
    server = MariaDb()
    server.start()
    try:
        server.sql("CREATE DATABASE mail CHARACTER SET utf8mb4;")
        for host in ("127.0.0.1", "localhost"):
            server.sql(f"CREATE USER mail@'{host}' IDENTIFIED BY 'it''s secret'; GRANT ALL ON mail.* TO mail@'{host}';")
        server.sql("USE mail; " + table(True))
        server.sql("USE mail; CREATE PROCEDURE found(IN key_ VARCHAR(100)) SELECT v FROM t WHERE k = key_ ORDER BY v;"
                   "CREATE PROCEDURE nothing(IN key_ VARCHAR(100)) SET @x = 1;")  # fmt: skip
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.top)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    need("pgsql")
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is not installed")
    server = Postgres()
    server.start()
    try:
        server.sql("CREATE USER mail PASSWORD 'it''s secret'", "postgres")
        server.sql("CREATE DATABASE mail OWNER mail", "postgres")
        server.sql(
            table(False) + "GRANT ALL ON t TO mail; CREATE FUNCTION found(text) RETURNS SETOF varchar AS "
            "'SELECT v FROM t WHERE k = $1 ORDER BY v' LANGUAGE SQL;"
        )
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.top)


def check_sql(both: Both, kind: str, head: str, forms: dict[str, str], keys: list[str] = KEYS) -> None:
    found = 0
    for form, text in forms.items():
        status, answers, _ = both.compare(kind, form, f"{head}\n{text}\n", keys if form != "limit" else keys[:2])
        found += len(answers)
        assert (status == 0) == (form not in ("wrong", "template")), form
        if form == "limit":
            both.compare(kind, "limit exceeded", f"{head}\n{text}\n", ["two@example.org"])
    assert found > 30


def test_sqlite(both: Both) -> None:
    need("sqlite")
    path = both.etc / "mail.db"
    database = sqlite3.connect(path)
    database.executescript(table(False))
    database.close()
    check_sql(both, "sqlite", f"dbpath = {path}", SQL_FORMS)


def test_mysql(both: Both, mariadb: MariaDb) -> None:
    head = f"user = mail\npassword = {PASSWORD}\ndbname = mail\n"
    check_sql(both, "mysql", head + f"hosts = 127.0.0.1:{mariadb.port}", SQL_FORMS)
    check_sql(
        both, "mysql", head + f"hosts = inet:127.0.0.1:1 unix:{mariadb.socket}",
        {"plain": SQL_FORMS["plain"], "procedure": "query = CALL found('%s')"},
    )  # fmt: skip
    for required in ("yes", "no"):
        both.compare("mysql", f"nothing {required}",
                     f"{head}hosts = unix:{mariadb.socket}\nquery = CALL nothing('%s')\nrequire_result_set = {required}\n", ["k"])  # fmt: skip


def test_mysql_options(both: Both, mariadb: MariaDb) -> None:
    options = both.etc / "my.cnf"
    options.write_text("[client]\nuser = wrong\n[postfix]\nuser=mail\n")
    head = f"password = {PASSWORD}\nhosts = 127.0.0.1:{mariadb.port}\ndbname = mail\noption_file = {options}\n"
    status, answers, _ = both.compare("mysql", "group", head + f"option_group = postfix\n{SQL_FORMS['plain']}\n", KEYS)
    assert status == 0 and len(answers) > 10
    status, _, _ = both.compare("mysql", "no group", head + f"{SQL_FORMS['plain']}\n", KEYS[:1])
    assert status == 1


def test_pgsql(both: Both, postgres: Postgres) -> None:
    # Postfix 3.7 talks Latin-1 to PostgreSQL: no key outside of ASCII is the same there.
    keys = [key for key in KEYS if key.isascii()]
    head = f"user = mail\npassword = {PASSWORD}\ndbname = mail\n"
    forms = {**SQL_FORMS, "function": "select_function = found"}
    check_sql(both, "pgsql", head + f"hosts = 127.0.0.1:{postgres.port}", forms, keys)
    uri = f"postgresql://mail:it%27s%20secret@127.0.0.1:{postgres.port}/mail?sslmode=disable"
    check_sql(both, "pgsql", f"dbname = mail\nhosts = {uri}", {"plain": SQL_FORMS["plain"], "parts": SQL_FORMS["parts"],
              "function": forms["function"], "old": forms["old"]}, keys)  # fmt: skip


def test_pgsql_utf8(both: Both, postgres: Postgres) -> None:
    path = both.etc / "p.cf"
    path.write_text(
        f"user = mail\npassword = {PASSWORD}\ndbname = mail\nhosts = 127.0.0.1:{postgres.port}\n{SQL_FORMS['plain']}\n"
    )
    _, ours = both.ask(f"pgsql:{path}", ["pärchen@example.org"], only_ours=True)
    assert isinstance(ours, tuple) and ours[1] == ["pärchen@example.org\tpär"]


def test_old_form(both: Both, mariadb: MariaDb) -> None:
    """Parameters in main.cf, with $name expanded."""
    (both.etc / "main.cf").write_text(
        f"compatibility_level = 3.6\nsecret = {PASSWORD}\nusers_hosts = 127.0.0.1:{mariadb.port}\nusers_user = mail\n"
        "users_password = $secret\nusers_dbname = mail\nusers_query = SELECT v FROM t WHERE k = '%s' ORDER BY v\n"
    )
    for spec in ("mysql:users", "proxy:mysql:users"):
        if spec.startswith("proxy"):
            _, ours = both.ask(spec, KEYS, only_ours=True)  # theirs would want a proxymap
            assert isinstance(ours, tuple) and ours[0] == 0 and len(ours[1]) > 10
        else:
            theirs, ours = both.ask(spec, KEYS)
            assert ours == theirs and isinstance(ours, tuple) and ours[0] == 0


ENTRIES = "dn: dc=example,dc=org\nobjectClass: domain\ndc: example\n\n"


def entry(name: str, mails: list[str], extra: str = "") -> str:
    lines = "".join(f"mail:: {__import__('base64').b64encode(mail.encode()).decode()}\n" for mail in mails)
    return (
        f"dn: uid={name},dc=example,dc=org\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\n"
        f"objectClass: labeledURIObject\nuid: {name}\ncn: {name}\nsn: x\n{lines}{extra}\n"
    )


LDAP_KEYS = [key for key in KEYS if not key.startswith(" ")]


@pytest.fixture(scope="module")
def slapd() -> Iterator[Slapd]:
    need("ldap", "slapd", "slapadd")
    text = ENTRIES
    plain = [key for key in LDAP_KEYS if key.isascii() and key not in ("nobody@example.org", "USER@Example.Org", "empty@example.org")]
    for number, key in enumerate(plain):
        text += entry(f"p{number}", [key], f"mailLocalAddress: to{number}@mail.example\nmailHost: host{number}\n")
    text += entry("two1", ["multi@example.org"], "mailLocalAddress: a@x.example\nmailLocalAddress: b@x.example\n")
    text += entry("two2", ["multi@example.org"], "mailLocalAddress: c@x.example\n")
    for name in ("m1", "m2"):
        text += entry(name, [f"{name}@example.org"], f"mailLocalAddress: {name}@inner.example\n")
    base = "dc=example,dc=org"
    members = f"seeAlso: uid=m1,{base}\nseeAlso: uid=m2,{base}\nseeAlso: uid=gone,{base}\n"
    text += entry("group", ["group@example.org"], members + "mailLocalAddress: group@self.example\n")
    text += entry("outer", ["outer@example.org"], f"seeAlso: uid=group,{base}\nmailLocalAddress: outer@self.example\n")
    text += entry("terminal", ["terminal@example.org"], members + "mailHost: stop.example\nmailLocalAddress: t@x.example\n")
    text += entry("loop", ["loop@example.org"], f"seeAlso: uid=loop,{base}\n")
    text += entry(
        "url", ["url@example.org"],
        f"labeledURI: ldap:///{base}?mailLocalAddress?sub?(|(uid=m1)(uid=m2))\nlabeledURI: ldap:///{base}?mailHost?sub?(uid=p0)\n",
    )  # fmt: skip
    server = Slapd(text)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.top)


GROUPS = ["group@example.org", "outer@example.org", "terminal@example.org", "url@example.org", "multi@example.org", "m1@example.org"]

LDAP_FORMS = {
    "plain": "query_filter = mail=%s\nresult_attribute = mailLocalAddress",
    "two attributes": "query_filter = (&(objectClass=inetOrgPerson)(mail=%s))\nresult_attribute = mailHost, mailLocalAddress",
    "or": "query_filter = (|(mail=%s)(uid=%u)(!(objectClass=*)))\nresult_attribute = mailLocalAddress",
    "substring": "query_filter = (mail=%u@*example*)\nresult_attribute = mailLocalAddress",
    "base": "search_base = uid=%u,dc=example,dc=org\nscope = base\nquery_filter = (objectClass=*)\nresult_attribute = mailLocalAddress",
    "one": "scope = one\nquery_filter = mail=%s\nresult_attribute = mailLocalAddress",
    "format": "query_filter = mail=%s\nresult_attribute = mailLocalAddress\nresult_format = smtp:[%d]%U",
    "filter": "query_filter = mail=%s\nresult_attribute = mailLocalAddress\nresult_filter = old:%s",
    "domain": "query_filter = mail=%s\nresult_attribute = mailLocalAddress\ndomain = example.org",
    "members": "query_filter = mail=%s\nresult_attribute = mailLocalAddress\nspecial_result_attribute = seeAlso, labeledURI",
    "leaf": "query_filter = mail=%s\nresult_attribute =\nleaf_result_attribute = mailLocalAddress\nspecial_result_attribute = seeAlso",
    "terminal": "query_filter = mail=%s\nresult_attribute =\nleaf_result_attribute = mailLocalAddress\n"
                "terminal_result_attribute = mailHost\nspecial_result_attribute = seeAlso",
    "no bind": "bind = no\nquery_filter = mail=%s\nresult_attribute = mailLocalAddress",
    "version 2": "version = 2\nquery_filter = mail=%s\nresult_attribute = mailLocalAddress",
}  # fmt: skip


def test_ldap(both: Both, slapd: Slapd) -> None:
    urls = (f"127.0.0.1:{slapd.port}", f"ldap://127.0.0.1:1 ldap://127.0.0.1:{slapd.port}",
            f"ldapi://{str(slapd.socket).replace('/', '%2F')}")  # fmt: skip
    found = 0
    for at, (form, text) in enumerate(LDAP_FORMS.items()):
        base = "" if "search_base" in text else "search_base = dc=example,dc=org\n"
        _, answers, _ = both.compare("ldap", form, f"server_host = {urls[at % 3]}\n{base}{text}\n", LDAP_KEYS + GROUPS)
        found += len(answers)
    assert found > 150


def test_ldap_bind_and_limits(both: Both, slapd: Slapd) -> None:
    head = f"server_host = 127.0.0.1\nserver_port = {slapd.port}\nsearch_base = dc=example,dc=org\nversion = 3\n"
    plain, members = LDAP_FORMS["plain"], LDAP_FORMS["members"]
    status, answers, _ = both.compare("ldap", "bind", f"{head}bind_dn = {Slapd.NAME}\nbind_pw = {PASSWORD}\n{plain}\n", GROUPS)
    assert status == 0 and len(answers) == 5  # url@ has no plain result
    for form, text, key in (
        ("wrong password", f"bind_dn = {Slapd.NAME}\nbind_pw = no\n{plain}", "m1@example.org"),
        ("size limit", f"size_limit = 1\n{plain}", "multi@example.org"),
        ("expansion limit", f"expansion_limit = 2\n{plain}", "multi@example.org"),
        ("recursion limit", f"recursion_limit = 1\n{members}", "outer@example.org"),
        ("loop", f"recursion_limit = 20\n{members}", "loop@example.org"),
        ("no base", f"search_base = dc=elsewhere\n{plain}", "m1@example.org"),
    ):
        both.compare("ldap", form, f"{head}{text}\n", [key])


def test_memcache(both: Both, tmp_path: Path) -> None:
    need("memcache", "memcached")
    server = Memcached()
    server.start()
    try:
        keys = ["k@example.org", "K@Example.org", "none@example.org", "l@example.org"]
        head = f"memcache = inet:127.0.0.1:{server.port}\n"
        backup = "backup = inline:{ k@example.org=found, l@example.org=more }\n"
        for form, text in (("empty", ""), ("backup", backup), ("filled", ""), ("domain", "domain = elsewhere.org\n")):
            _, answers, _ = both.compare("memcache", form, f"{head}{text}key_format = x:%s\n", keys)
            assert len(answers) == {"empty": 0, "backup": 3, "filled": 3, "domain": 0}[form]
        both.compare("memcache", "parts", f"{head}key_format = %u:%3\n", keys)
    finally:
        server.stop()
        shutil.rmtree(server.top)
    both.compare("memcache", "down", head, ["k@example.org"])
    both.compare("memcache", "down backup", head + backup, keys)

"""A wrong configuration is refused with one line that names file, line and reason; what is merely missing delays mail, clearly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.instance import MASTER_CF, Client, Instance, running, wait_for


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    made = Instance()
    made.write("main.cf.good", (made.etc / "main.cf").read_text())
    made.write("master.cf.good", (made.etc / "master.cf").read_text())
    yield made
    made.remove()


MAIN = [
    ("smtpd_recipient_limit = many", 'parameter smtpd_recipient_limit: bad numerical value: "many"'),
    ("smtpd_banner hello", "missing '=' after attribute name"),
    ("smtpd_banner = ${myhostname", "parameter smtpd_banner: truncated macro reference"),
    ("smtpd_banner = $smtpd_banner", "parameter smtpd_banner: unreasonable macro call nesting"),
    ("myhostname = -a..b", "parameter myhostname: bad host name"),
    ("mailbox_size_limit = 1000", "mailbox_size_limit is smaller than message_size_limit"),
    ("queue_directory = /proc/no/such", "parameter queue_directory: cannot make directory /proc/no/such"),
    ("data_directory = /proc/no/such", "parameter data_directory: cannot make directory /proc/no/such"),
    ("maillog_file = /no/such/log", "parameter maillog_file: open /no/such/log: No such file or directory"),
    ("smtpd_recipient_restrictions = permit_mynetwork", 'unknown smtpd restriction: "permit_mynetwork"'),
    ("smtpd_relay_restrictions = permit_mynetworks", "specify at least one working instance of"),
]
MASTER = [
    ("foo unix n n", "bad field count"),
    ("foo bar n n n - - smtpd", 'invalid type field "bar"'),
    ("foo unix n n n - - smptd", "service foo/unix: no such program: smptd"),
    ("smtp unix - - n - - smtp", "service smtp/unix: duplicate service, first on line 13"),
    ("foo unix - - n - - smtp -o smtp_mail_timeout=soon", "parameter smtp_mail_timeout: bad time value"),
    ("nosuchport inet n - n - - smtpd", "unknown service or port: nosuchport"),
    ("foo unix - - y - - local", "local cannot run in a jail"),
]


@pytest.mark.parametrize(("line", "reason"), MAIN)
def test_main_cf(instance: Instance, line: str, reason: str) -> None:
    good = (instance.etc / "main.cf.good").read_text()
    instance.write("master.cf", (instance.etc / "master.cf.good").read_text())
    instance.write("main.cf", good + line + "\n")
    number = (good + line).count("\n") + 1
    _refused(instance, f"{instance.etc}/main.cf, line {number}: " if "maillog" not in line else "", reason)


@pytest.mark.parametrize(("line", "reason"), MASTER)
def test_master_cf(instance: Instance, line: str, reason: str) -> None:
    instance.write("main.cf", (instance.etc / "main.cf.good").read_text())
    instance.write("master.cf", (instance.etc / "master.cf.good").read_text() + line + "\n")
    _refused(instance, f"{instance.etc}/master.cf, line {MASTER_CF.count(chr(10)) + 1}: ", reason)


def _refused(instance: Instance, place: str, reason: str) -> None:
    result = instance.command("postfix", "start")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    assert "fatal: " + place in result.stderr, result.stderr
    assert reason in result.stderr, result.stderr
    assert instance.processes() == {}


def test_what_is_missing_delays_mail_and_says_why() -> None:
    """An unknown transport service, a relayhost that is none, a transport table with nonsense: deferred, never lost."""
    settings = """\
transport_maps = inline:{ { a.test = nosuch:[x] }, { b.test = smtp:[broken } }
virtual_alias_maps = hash:$config_directory/missing
"""
    with running(settings) as instance:
        log = instance.wait_log(r"warning: .*virtual_alias_maps: hash:\S+/missing is unavailable: .*\(make it with: postmap \S+\)")
        assert len(log) == 1
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            assert client.send(b"me@test.example", [b"x@a.test"], b"\r\nx").startswith(b"451 4.3.0 ")
            instance.write("missing", "ali@box.test joe@box.test\n")
            assert instance.command("postmap", f"hash:{instance.etc}/missing").returncode == 0

            def accepted() -> bool:
                client.ask(b"RSET")
                return client.send(b"me@test.example", [b"x@a.test", b"x@b.test", b"ali@box.test"], b"\r\nx").startswith(b"250 ")

            wait_for(accepted, 15, "the table that has come is used")
        wait_for(lambda: instance.mailbox("joe"), what="mail by the new table")
        instance.wait_log(r"to=<x@a.test>.*status=deferred \(mail transport unavailable\)")
        instance.wait_log(r"to=<x@b.test>.*status=deferred \(")
        assert instance.unexpected() == []

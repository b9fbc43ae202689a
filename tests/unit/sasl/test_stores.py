"""sasldb and its commands, smtpd.conf, and what goes over the wires to saslauthd and Dovecot."""

from __future__ import annotations

import asyncio
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.commands import sasldblistusers2, saslpasswd2
from estafeta.protocol.smtp_server import SmtpServer
from estafeta.sasl import app_conf, saslauthd
from estafeta.sasl.dovecot import parameters, parse_mechanism
from estafeta.sasl.sasldb import Sasldb, read_verifier, write_verifier
from estafeta.sasl.scram import is_right
from estafeta.sasl.vocabulary import Identity, SaslFailed, ServerNames, Unavailable, Verifier


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> object:
    def give(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return give


def test_accounts(tmp_path: Path, stdin: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "sasldb2")
    assert callable(stdin)
    for arguments, text in (
        (["-c", "-u", "r", "joe"], "secret\n"), (["-n", "-u", "r", "ann"], "hidden"), (["bob@other"], "x y\r\n"),
        (["-d", "-u", "r", "nobody"], ""), (["-u", "r", "joe"], "second"),
    ):  # fmt: skip
        stdin(text)
        assert saslpasswd2.main(["-f", path, *arguments]) == 0
    assert sasldblistusers2.main(["-f", path]) == 0
    assert capsys.readouterr().out == "ann@r: authPassword\nbob@other: userPassword\njoe@r: userPassword\n"
    database = Sasldb(path)
    joe, ann, bob = database.find("joe", "r"), database.find("ann", "r"), database.find("bob", "other")
    assert joe is not None and joe.password == b"second"
    assert ann is not None and ann.password is None
    assert bob is not None and bob.password == b"x y"
    for account, password in ((joe, b"second"), (ann, b"hidden")):
        for name, verifier in account.verifiers.items():
            assert is_right(password, verifier, name)
            assert not is_right(b"secret", verifier, name)
    assert b"hidden" not in (tmp_path / "sasldb2").read_bytes()
    assert database.find("joe", "other") is None
    assert saslpasswd2.main(["-d", "-f", path, "-u", "r", "joe"]) == 0
    assert database.find("joe", "r") is None  # the file is new, and is read anew
    database.close()


def test_bad_commands(tmp_path: Path, stdin: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "db")
    assert callable(stdin)
    stdin("")
    assert saslpasswd2.main(["-f", path, "joe"]) == 7
    assert saslpasswd2.main([]) == 1
    assert saslpasswd2.main(["-x"]) == 1
    assert saslpasswd2.main(["-c", "-d", "joe"]) == 1
    stdin("x")
    assert saslpasswd2.main(["-f", str(tmp_path / "no" / "db"), "joe"]) == 1
    assert sasldblistusers2.main(["-f", str(tmp_path / "no")]) == 1
    (tmp_path / "db").write_bytes(b"\0" * 12 + (0x061561).to_bytes(4, "little") + b"\0" * 100)
    stdin("x")
    assert saslpasswd2.main(["-f", path, "joe"]) == 1
    assert sasldblistusers2.main(["-f", path]) == 1
    assert capsys.readouterr().err.count("made by another program: move it away") == 2
    with pytest.raises(Unavailable, match="made by another program"):
        Sasldb(path).find("joe", "r")
    with pytest.raises(Unavailable, match="No such file"):
        Sasldb(str(tmp_path / "none")).find("joe", "r")


@given(st.integers(1, 10**6), st.binary(), st.binary(), st.binary())
def test_verifiers_come_back(rounds: int, salt: bytes, stored: bytes, server: bytes) -> None:
    verifier = Verifier(rounds, salt, stored, server)
    assert read_verifier(write_verifier(verifier)) == verifier


def test_names() -> None:
    names = ServerNames("host.test", "")
    assert names.identity(b"joe") == Identity("joe", "host.test", "joe")
    assert names.identity(b"joe@x.test") == Identity("joe", "x.test", "joe@x.test")
    assert ServerNames("h", "realm").identity(b"joe") == Identity("joe", "realm", "joe@realm")
    for bad in (b"", b"  ", b"a\nb", b"a\0b", b"\xff", b"x" * 300):
        with pytest.raises(SaslFailed):
            names.identity(bad)


def test_application_file(tmp_path: Path) -> None:
    conf = app_conf.parse("# x\npwcheck_method: sasldb\nmech_list: plain LOGIN \n")
    assert (conf.methods, conf.mechanisms, conf.sasldb_path, conf.warnings) == (("sasldb",), ("PLAIN", "LOGIN"), "/etc/sasldb2", ())
    conf = app_conf.parse("pwcheck_method: auxprop saslauthd\nauxprop_plugin: sasldb\nsaslauthd_path: /x/mux\nsasldb_path: /y\n")
    assert (conf.methods, conf.saslauthd_path, conf.sasldb_path, conf.mechanisms) == (("sasldb", "saslauthd"), "/x/mux", "/y", None)
    conf = app_conf.parse("pwcheck_method: auxprop\nauxprop_plugin: sql\nsql_engine: mysql\nnonsense\n", "f")
    assert conf.methods == ()
    assert len(conf.warnings) == 3
    first, second = tmp_path / "a", tmp_path / "b"
    second.mkdir()
    (second / "smtpd.conf").write_text("pwcheck_method: saslauthd\n")
    assert app_conf.load("smtpd", [str(first), str(second)]).methods == ("saslauthd",)
    assert app_conf.load("other", [str(first), str(second)]) == app_conf.AppConf()
    assert app_conf.places("/a:/b", "/etc/x") == ["/a", "/b"]
    assert app_conf.places("", "/etc/postfix") == list(app_conf.PLACES)


@given(st.text())
def test_application_file_of_nonsense(text: str) -> None:
    app_conf.parse(text)


def test_saslauthd_request(tmp_path: Path) -> None:
    assert saslauthd.request("joe", b"pw", "smtp", "") == b"\0\3joe\0\2pw\0\4smtp\0\0"
    with pytest.raises(ValueError, match="too long"):
        saslauthd.request("x" * 65536, b"", "", "")
    identity = Identity("joe", "r", "joe@r")
    asked = []

    async def ask(answer: bytes, path: str) -> bool:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.append(await reader.readexactly(len(saslauthd.request("joe", b"pw", "smtp", "r"))))
            writer.write(answer)
            if not answer:
                await reader.read()  # until the other side has had enough
            writer.close()
            closed.set()

        closed = asyncio.Event()
        server = await asyncio.start_unix_server(serve, path)
        async with server:
            try:
                return await saslauthd.check(path, identity, b"pw", "smtp", timeout_s=0.2)
            finally:
                await closed.wait()
                await asyncio.sleep(0)

    assert asyncio.run(ask(b"\0\2OK", str(tmp_path / "1"))) is True
    assert asyncio.run(ask(b"\0\7NO\0text", str(tmp_path / "2"))) is False
    assert asked == [saslauthd.request("joe", b"pw", "smtp", "r")] * 2
    for number, answer in enumerate((b"\0\2??", b"\0\2O", b"")):
        with pytest.raises(Unavailable):
            asyncio.run(ask(answer, str(tmp_path / f"bad{number}")))
    with pytest.raises(Unavailable, match="No such file"):
        asyncio.run(saslauthd.check(str(tmp_path / "none"), identity, b"pw", "smtp"))


def test_dovecot_lines() -> None:
    plain = parse_mechanism(["plain", "plaintext"])
    assert plain.name == "PLAIN"
    assert plain.fits(frozenset(("noanonymous",)))
    assert not plain.fits(frozenset(("noplaintext",)))
    digest = parse_mechanism(["DIGEST-MD5", "dictionary", "active", "mutual-auth"])
    assert digest.fits(frozenset(("noplaintext", "mutual_auth", "noanonymous")))
    assert not digest.fits(frozenset(("noactive",)))
    assert not parse_mechanism(["ANONYMOUS", "anonymous"]).fits(frozenset(("noanonymous",)))
    assert parameters(["user=a\x01tb", "temp", "reason=x=y"]) == {"user": "a\tb", "temp": "", "reason": "x=y"}


def test_lines_that_are_no_commands() -> None:
    machine = SmtpServer()
    assert machine.next_line(10) is None
    machine.receive_data(b"abc")
    assert machine.next_line(10) is None
    machine.receive_data(b"\r\nxyz\nNOOP\r\n")
    assert machine.next_line(10) == (b"abc", False)
    assert machine.next_line(10) == (b"xyz", False)
    machine.receive_data(b"y" * 11 + b"\r\n")
    event = machine.next_event()
    assert event is not None and event[0] == b"NOOP"
    assert machine.next_line(10) == (b"", True)
    for _ in range(5):
        machine.receive_data(b"z" * 1000)
        assert machine.next_line(10) is None
        assert machine.unread < 1000 or not machine.unread
    machine.receive_data(b"\r\nQUIT\r\n")
    assert machine.next_line(10) == (b"", True)
    event = machine.next_event()
    assert event is not None and event[0] == b"QUIT"

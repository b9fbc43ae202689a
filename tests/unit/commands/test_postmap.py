import io
import os
from pathlib import Path

import pytest

from estafeta.commands import newaliases, postalias, postmap


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "main.cf").write_text(f"compatibility_level = 3.6\nmyhostname = host.example\nalias_database = hash:{tmp_path}/al\n")
    monkeypatch.setenv("MAIL_CONFIG", str(etc))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_make_query_list_change(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "t").write_bytes(b'Key1 one\n  two\n# c\nkey1 dup\nonly\nkey3:\tv\n"bad x\n"a b" q\nb\xe9 x\n')
    os.chmod("t", 0o640)
    assert postmap.main(["hash:t"]) == 0
    assert capfd.readouterr().err.splitlines() == [
        'postmap: warning: t.db: duplicate entry: "key1"',
        "postmap: warning: t, line 5: expected format: key whitespace value",
        'postmap: warning: t, line 6: record is in "key: value" format; is this an alias file?',
        "postmap: warning: t, line 7: unbalanced '\"' in '\"bad x' -- ignoring this line",
        'postmap: warning: t, line 9: non-UTF-8 input "b? x" -- ignoring this line',
    ]
    assert os.stat("t.db").st_mode & 0o777 == 0o640
    assert postmap.main(["-q", "KEY1", "t"]) == 0
    assert capfd.readouterr().out == "one  two\n"
    assert postmap.main(["-q", "none", "t"]) == 1
    feed(monkeypatch, b"key1 new\nnewk v\n")
    assert postmap.main(["-i", "hash:t"]) == 0
    assert "duplicate" in capfd.readouterr().err
    feed(monkeypatch, b"key1 new\n")
    assert postmap.main(["-ir", "hash:t"]) == 0
    assert postmap.main(["-d", "newk", "hash:t"]) == 0
    assert postmap.main(["-d", "newk", "hash:t"]) == 1
    assert postmap.main(["-s", "hash:t"]) == 0
    assert capfd.readouterr().out == '"a b"\tq\nkey1\tnew\nkey3:\tv\n'
    feed(monkeypatch, b"KEY1\nzzz\nkey3:\n")
    assert postmap.main(["-q", "-", "hash:t"]) == 0
    assert capfd.readouterr().out == "KEY1\tnew\nkey3:\tv\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: postmap"),
        (["-z"], "usage: postmap"),
        (["-q", "a", "hash:none"], "open database none.db: No such file or directory"),
        (["hash:none"], "open none: No such file or directory"),
        (["foo:x"], "unsupported dictionary type: foo. Is the postfix-foo package installed?"),
        (["regexp:x"], "unsupported dictionary type: regexp does not support bulk-mode creation."),
        (["-s", "static:x"], "table static:x: sequence operation is not supported"),
        (["-q", "a", "-d", "b", "hash:x"], "specify only one of -s -q or -d"),
        (["-q", "a", "fail:x"], "table fail:x: query error"),
        (["-b", "hash:x"], 'specify -b -h or -m only with "-q -"'),
    ],
)
def test_fatal(place: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert postmap.main(arguments) == 1
    assert f"postmap: fatal: {message}" in capfd.readouterr().err


def test_aliases(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "al").write_text('Root: joe ,ann\n  , "|x y"\n"quoted name": x\na@b: c\nnone\n')
    assert newaliases.main([]) == 0
    assert capfd.readouterr().err.splitlines() == [
        f"postalias: warning: {place}/al, line 4: name must be local",
        f"postalias: warning: {place}/al, line 5: need name:value pair",
    ]
    assert postalias.main(["-s", "hash:al"]) == 0
    out = capfd.readouterr().out
    assert 'root:\tjoe, ann, "|x y"\n' in out and "quoted name:\tx\n" in out
    assert "@:\t@\n" in out and "YP_MASTER_NAME:\thost.example\n" in out


def test_headers_and_body(place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, b"From: a\nSubject: x\n  y\n\nbody\n")
    assert postmap.main(["-hq", "-", "regexp:{{/./ any}}"]) == 0
    assert capfd.readouterr().out == "From: a\tany\nSubject: x\n  y\tany\n"


def test_base64_of_files(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "f1").write_text("hello")
    (place / "t").write_text("k f1, f1\nl nofile\n")
    assert postmap.main(["-F", "hash:t"]) == 0
    assert "open nofile: No such file or directory: skipping this entry" in capfd.readouterr().err
    assert postmap.main(["-Fq", "k", "hash:t"]) == 0
    assert capfd.readouterr().out == "hello\nhello\n"

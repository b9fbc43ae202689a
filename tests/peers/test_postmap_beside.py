"""The same postmap commands on Debian's Postfix and here: same output, same exit status."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

POSTMAP = "/usr/sbin/postmap"
pytestmark = pytest.mark.skipif(not os.path.exists("/usr/sbin/postconf"), reason="Debian's Postfix is not installed")

SOURCE = b'Key1 one\n  two\n# c\nkey1 dup\nonly\nkey3:\tv\n"bad x\n"a b" q\nb\xe9 x\nutf\xc3\x89 y\n'
RULES = "/^Sub(.*)x$/ REJECT ${1} $(1) $$\n/abc/\n/a/z x\nabc\n/a/ $1\nif /q/\n/^qa/ A\n!/zz/ NEG\nendif\n/(un/ x\n/m/ M\n"
CIDR = "1.2.3.4 one\n10.0.0.1/8 bad\nif !1.0.0.0/8\n!9.0.0.0/8 x\n::/0 six\nendif\n1.0.0.0/8 net\n"

CASES = [
    ["hash:t"],
    ["lmdb:t"],
    ["-s", "lmdb:t"],
    *(["-q", key, "lmdb:t"] for key in ("KEY1", "utfé", '"a b"', "none")),
    *(["-q", key, f"{kind}:r"] for key in ("SubFOOx", "qz", "qazz", "wm", "none") for kind in ("regexp", "pcre")),
    *(["-q", key, "cidr:c"] for key in ("1.2.3.4", "1.1.1.1", "9.9.9.9", "8.8.8.8", "::5", "junk")),
    ["-q", "z", "inline:{ x=y, { z = a b } }"],
    ["-q", "x", "unionmap:{static:a,inline:{x=c}}"],
    ["-q", "x", "pipemap:{inline:{x=y},inline:{y=z}}"],
    ["-q", "x", "inline:{ x }"],
    ["-q", "root", "unix:passwd.byname"],
    ["-q", "x", "hash:nofile"],
    ["regexp:r"],
    ["-q", "a", "-d", "b", "hash:t"],
]


def run(command: list[str], place: Path, arguments: list[str]) -> tuple[int, bytes, list[bytes]]:
    done = subprocess.run(
        [*command, "-c", str(place), *arguments], cwd=place, capture_output=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, [line for line in done.stderr.splitlines() if b"master.cf" not in line]


def test_same_answers(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for place in (ours, theirs):
        place.mkdir()
        (place / "main.cf").write_text("compatibility_level = 3.6\n")
        (place / "t").write_bytes(SOURCE)
        (place / "r").write_text(RULES)
        (place / "c").write_text(CIDR)
    mine = [sys.executable, "-m", "estafeta.commands.postmap"]
    for arguments in CASES:
        assert run(mine, ours, arguments) == run([POSTMAP], theirs, arguments), arguments


def test_lmdb_files_are_interchangeable(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    (tmp_path / "t").write_text("Key1 one\nkey2 two\n")
    mine = [sys.executable, "-m", "estafeta.commands.postmap"]
    for maker, reader in ((mine, [POSTMAP]), ([POSTMAP], mine)):
        assert run(maker, tmp_path, ["lmdb:t"])[0] == 0
        assert run(reader, tmp_path, ["-q", "key2", "lmdb:t"]) == (0, b"two\n", [])
        (tmp_path / "t.lmdb").unlink()

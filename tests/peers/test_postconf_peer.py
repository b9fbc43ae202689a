"""postconf beside Debian's own: the same output, warnings, exit status and edited files.

(`postconf -Fh` of 3.7 loses the space after a pipe(8) command; ours has it.)
Warnings are compared as sets: Postfix prints them in the order of its hash table, and some of them several times.
On purpose different: a malformed `$` expression gives one fatal line instead of warnings and a fatal one; an edit keeps
a last line without newline apart from what is added.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REAL = "/usr/sbin/postconf"
REALWORLD = Path(__file__).resolve().parents[3] / "shared" / "realworld"
CONFIGS = sorted(path.name for path in REALWORLD.iterdir() if path.is_dir()) if REALWORLD.is_dir() else []

pytestmark = pytest.mark.skipif(not os.access(REAL, os.X_OK), reason="Debian's Postfix is not installed")

Result = tuple[int, str, set[str]]


def run(program: list[str], directory: Path, words: list[str]) -> Result:
    done = subprocess.run(
        [*program, "-c", str(directory), *words],
        capture_output=True,
        check=False,
        timeout=60,
        text=True,
        errors="replace",
    )
    output = (
        re.sub(r"(process_id =|^)( ?)\d+$", r"\1\2N", done.stdout, flags=re.M) if "-h" not in words else done.stdout
    )
    output = re.sub(r"postconf \d+ ", "postconf N ", output)
    return done.returncode, output, {line.replace("/usr/sbin/", "") for line in done.stderr.splitlines()}


def both(directory: Path, *words: str) -> tuple[Result, Result]:
    ours = [
        sys.executable,
        "-c",
        "import sys; from estafeta.commands.postconf import main; sys.argv[0] = 'postconf'; sys.exit(main())",
    ]
    return run([REAL], directory, list(words)), run(ours, directory, list(words))


def same(directory: Path, *words: str) -> None:
    real, ours = both(directory, *words)
    assert ours == real, words


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").touch()
    (tmp_path / "master.cf").touch()
    return tmp_path


def test_defaults(empty: Path) -> None:
    same(empty, "-d")
    same(empty, "-df")


@pytest.mark.parametrize("name", CONFIGS or [pytest.param("", marks=pytest.mark.skip("no ../shared/realworld"))])
def test_real_configurations(name: str, tmp_path: Path) -> None:
    directory = tmp_path / name
    shutil.copytree(REALWORLD / name, directory, copy_function=shutil.copyfile)
    for path in directory.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(b"@DIR@", bytes(directory)))
    for words in (["-n"], ["-nf"], ["-x"], ["-nC", "service"], ["-Mf"], ["-M"], ["-Mx"], ["-F"], ["-Px"], ["-Hn"]):
        real, ours = both(directory, *words)
        if name == "voxpupuli":  # An old name that only master.cf sets is listed by Postfix as if main.cf had it.
            real = (real[0], re.sub(r"^fallback_relay =?\n", "", real[1], flags=re.M), real[2])
        assert ours == real, words


OPTIONS = """
-Q|-h -H biff|-d -n|-M -H|-M -F|-d -M|-e|-#|-X|-e biff|-X a=b|-d a=b|-F -X a|-P -d|-a -n|biff -h|-C foo|-e -d a=b|-c|-o
-M -e a|-n -x -e a=b|-f -e a=b|-h -e a=b|-x -h -M|-n -M|-M -C user|-o a=b -e c=d|-# -e a|-l -e|-T x|-o bad x|-M a/b/c
-F a/b/c/d|-F smtp/inet/bogus|-P no/inet/x|-M no|-a|-A|-l|nosuch|-d nosuch|-hx smtpd_timeout mail_version|-o foo=2 foo
"""


@pytest.mark.parametrize("words", OPTIONS.strip().replace("\n", "|").split("|"))
def test_options(words: str, empty: Path) -> None:
    same(empty, *words.split())


MAIN = (
    "# top\nmyhostname = a.b.c\n  cont\n# c in\n\nalways_bcc = x\n   # within\n  y\n\nalways_bcc=z\n"
    "smtpd_restriction_classes = a,b\na = $d\nd = ldap:q\nq_server_host = h\nq_nosuch = 1\nunused = 1\nlast = $gone\n"
    "biff = ${biff2?{$x}:{no}}\n"
)
MASTER = """# comment
smtp      inet  n       -       y       -       -       smtpd
  -o foo=bar -o { always_bcc = a b }
    -o content_filter=
127.0.0.1:10025 inet n - n - 10 smtpd -o smtpd_tls_security_level=encrypt -v
pickup    unix  n       -       y       60      1       pickup
uucp      unix  -       n       n       -       -       pipe
  flags=Fqhu user=uucp argv=uux -r -n -z -a$sender - $nexthop!rmail ($recipient)
relay     unix  -       -       y       -       -       smtp
        -o syslog_name=postfix/$service_name
"""


def test_usage(empty: Path) -> None:
    (empty / "main.cf").write_text(MAIN)
    (empty / "master.cf").write_text(MASTER)
    for words in (["-n"], ["-nx"], ["-C", "user"], ["-P"], ["-Px"], ["-F"], ["-Ff"], ["-Fh", "pickup/unix/command"]):
        real, ours = both(empty, *words)
        # Postfix reports a repeated entry at each of its several readings of the file, both ways round.
        real = (*real[:2], {line for line in real[2] if "overriding" not in line})
        ours = (*ours[:2], {line for line in ours[2] if "overriding" not in line})
        assert ours == real, words


EDITS: list[list[str]] = [
    ["always_bcc=n"],
    ["-e", "nova=1"],
    ["-#", "always_bcc"],
    ["-X", "always_bcc", "nosuch"],
    ["-e", "a=b c", "myhostname=q"],
    ["-M", "smtp/inet=smtp inet n - n - - smtpd -o a=b"],
    ["-Me", "new/unix=new unix - - n - - pipe flags=R  user=x {argv=a b}"],
    ["-M", "new/unix=new unix - - n - pipe"],
    ["-M", "new/bogus=new bogus - - n - - pipe"],
    ["-MX", "smtp/inet"],
    ["-M#", "smtp/inet"],
    ["-MX", "*/unix"],
    ["-F", "*/unix/chroot=n"],
    ["-F", "smtp/inet/command=smtpd -o x=y -v"],
    ["-F", "nosuch/unix/chroot=n"],
    ["-F", "smtp/inet/wakeup=60?"],
    ["-P", "smtp/inet/foo=baz", "relay/unix/n2=d"],
    ["-PX", "smtp/inet/always_bcc"],
    ["-P", "*/unix/a=b"],
    ["-P", "smtp/inet/new= a b "],
]


@pytest.mark.parametrize("words", EDITS, ids=" ".join)
def test_edits(words: list[str], empty: Path) -> None:
    files: list[tuple[str, str]] = []
    results: list[Result] = []
    for which in (0, 1):
        (empty / "main.cf").write_text(MAIN)
        (empty / "master.cf").write_text(MASTER)
        ours = [sys.executable, "-c", "import sys; from estafeta.commands.postconf import main; sys.exit(main())"]
        results.append(run(ours if which else [REAL], empty, words))
        files.append(((empty / "main.cf").read_text(), (empty / "master.cf").read_text()))
    assert results[1] == results[0]
    assert files[1] == files[0]

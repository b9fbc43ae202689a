"""postconf: what it prints, warns about and returns, and what its edits leave in the files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from estafeta.commands.postconf import main

MAIN = "myhostname = mx1.example.org\nfoo = 1\nown = a  b\nalways_bcc = $own $nosuch\nmyhostname = mx.example.org\n"
MASTER = """smtp      inet  n       -       y       -       -       smtpd
  -o foo=bar -o { always_bcc = a b }
pipe    unix  -       n       n       -       -       pipe
  flags=R user=x argv={ a  b } ${recipient}
"""


class Postconf:
    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capture = capture

    def __call__(self, *words: str) -> tuple[int, str, list[str]]:
        status = main(["-c", str(self.directory), *words])
        captured = self.capture.readouterr()
        errors = captured.err.replace(f"{self.directory}/", "").replace("postconf: ", "").splitlines()
        return status, captured.out, errors

    def read(self, name: str) -> str:
        return (self.directory / name).read_text()


@pytest.fixture
def postconf(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Postconf:
    (tmp_path / "main.cf").write_text(MAIN)
    (tmp_path / "master.cf").write_text(MASTER)
    return Postconf(tmp_path, capsys)


AFTER = ["warning: main.cf: unused parameter: foo=1", "warning: master.cf: unused parameter: foo=bar"]
BEFORE = [
    "warning: main.cf, line 5: overriding earlier entry: myhostname=mx1.example.org",
    "warning: main.cf: undefined parameter: nosuch",
]


def test_set_parameters(postconf: Postconf) -> None:
    assert postconf("-n") == (
        0,
        f"always_bcc = $own $nosuch\nconfig_directory = {postconf.directory}\nmyhostname = mx.example.org\nown = a b\n",
        BEFORE + AFTER,
    )


def test_named_parameters(postconf: Postconf) -> None:
    assert postconf("-x", "always_bcc", "biff")[1] == "always_bcc = a b\nbiff = yes\n"
    assert postconf("-h", "mydomain", "relayhost")[1] == "$mydomain\n\n".replace("$mydomain", "example.org")
    assert postconf("-H", "biff")[1] == "biff\n"
    assert postconf("-d", "myorigin", "pipe_time_limit")[1] == "myorigin = $myhostname\npipe_time_limit = $command_time_limit\n"
    status, output, errors = postconf("nosuch")
    assert (status, output) == (0, "")
    assert "warning: nosuch: unknown parameter" in errors
    assert postconf("-o", "stress=yes", "-hx", "smtpd_timeout")[1] == "10s\n"


def test_classes(postconf: Postconf) -> None:
    assert postconf("-C", "user")[1] == "own = a b\n"
    services = postconf("-H", "-C", "service")[1].splitlines()
    assert len(services) == 17
    assert all(name.startswith("pipe_") for name in services)
    assert len(postconf("-d")[1].splitlines()) == 831 + 17


def test_folding(postconf: Postconf) -> None:
    for line in postconf("-df", "proxy_read_maps")[1].splitlines():
        assert len(line) <= 80


def test_master_views(postconf: Postconf) -> None:
    assert postconf("-M", "pipe")[1] == (
        "pipe       unix  -       n       n       -       -       pipe flags=R user=x {argv={ a  b }} ${recipient}\n"
    )
    assert postconf("-F", "smtp/inet/chroot")[1] == "smtp/inet/chroot = y\n"
    assert postconf("-P")[1] == "smtp/inet/always_bcc = a b\nsmtp/inet/foo = bar\n"
    assert 'warning: unmatched request: "none"' in postconf("-M", "none")[2]


def test_edits_of_main_cf(postconf: Postconf) -> None:
    assert postconf("foo=2", "biff = no")[0] == 0
    assert postconf("-#", "own")[0] == 0
    assert postconf("-X", "always_bcc")[0] == 0
    assert postconf("myhostname=x")[2] == ['warning: main.cf: multiple entries for "myhostname"']
    assert postconf.read("main.cf") == "myhostname = x\nfoo = 2\n#own = a  b\nmyhostname = x\nbiff = no\n"


def test_edits_of_master_cf(postconf: Postconf) -> None:
    assert postconf("-P", "smtp/inet/foo=baz", "smtp/inet/new=1") == (0, "", [])
    assert postconf("-PX", "smtp/inet/always_bcc") == (0, "", [])
    assert postconf("-F", "*/inet/chroot=n") == (0, "", [])
    assert postconf("-M#", "pipe/unix") == (0, "", [])
    assert postconf("-M", "new/unix=new unix - - n - - error") == (0, "", [])
    assert postconf.read("master.cf") == (
        "smtp       inet  n       -       n       -       -       smtpd\n    -o foo=baz\n    -o new=1\n"
        "#pipe    unix  -       n       n       -       -       pipe\n#  flags=R user=x argv={ a  b } ${recipient}\n"
        "new        unix  -       -       n       -       -       error\n"
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["-d", "-n"], "fatal: specify one of -d -n"),
        (["-e"], "fatal: -e requires name=value argument"),
        (["-e", "biff"], "fatal: missing '=' after attribute name: \"biff\""),
        (["-X", "a=b"], "fatal: specify one of -e -X"),
        (["a=b\nc=d"], "fatal: -e, -X, or -# accepts no multi-line input"),
        (["-M", "smtp=x"], "fatal: -Me, -MX or -M# requires service_name/type"),
        (["-F", "smtp/inet/chroot=q"], 'fatal: invalid chroot field "q" in "q"'),
        (["-C", "bogus"], 'fatal: unknown -C option value "bogus" in "bogus"'),
        (["-M", "-H"], "fatal: with option -M, do not specify -H"),
    ],
)
def test_errors_change_nothing(postconf: Postconf, words: list[str], error: str) -> None:
    assert postconf(*words) == (1, "", [error])
    assert (postconf.read("main.cf"), postconf.read("master.cf")) == (MAIN, MASTER)


def test_files_that_cannot_be_read(postconf: Postconf) -> None:
    (postconf.directory / "master.cf").unlink()
    assert postconf("-h", "biff")[2][1] == "warning: open master.cf: No such file or directory"
    (postconf.directory / "main.cf").write_text("biff\n")
    assert postconf("biff") == (1, "", ["fatal: main.cf, line 1: missing '=' after attribute name: \"biff\""])
    (postconf.directory / "main.cf").unlink()
    assert postconf("biff") == (1, "", ["fatal: open main.cf: No such file or directory"])


def test_lists(postconf: Postconf) -> None:
    assert postconf("-l")[1].split() == ["flock", "fcntl", "dotlock"]
    assert {"hash", "regexp", "cidr"} <= set(postconf("-m")[1].split())


def test_start_path_is_light(postconf: Postconf) -> None:
    code = (
        "import sys; from estafeta.commands.postconf import main; main(['-c', sys.argv[1], 'biff']);"
        "print(sorted({'asyncio', 'ssl', 'msgspec', 'uvloop', 'subprocess', 'socket', 'ctypes'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code, str(postconf.directory)], capture_output=True, text=True, check=True)
    assert run.stdout == "biff = yes\n[]\n"

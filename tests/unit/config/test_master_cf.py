"""master.cf: columns, arguments, errors; and the edits that postconf makes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.config.errors import ConfigError
from estafeta.config.master_cf import (
    BUILTIN_MASTER_CF,
    MasterEntry,
    MasterService,
    disabled_services,
    load_master_cf,
    parse_entry,
    parse_master_cf,
)
from estafeta.config.master_edit import edit_master, print_entry


def one(text: str) -> MasterService:
    (service,) = parse_master_cf(text, "m.cf")
    return service


def test_columns() -> None:
    service = one("# c\nsmtp inet n - y 60? 10 smtpd\n  -o a=b -v -o { c = d e }\n# within\n  -D -vv\n")
    assert service == MasterService(
        "smtp", "inet", False, True, True, 60, True, 10, "smtpd", (), (("a", "b"), ("c", "d e")), 3, True, 2
    )


def test_defaults_of_columns() -> None:
    service = one("a unix - - - - - pipe flags=R argv=/x -o { two words } ${nexthop}")
    assert (service.private, service.unpriv, service.chroot) == (True, True, False)
    assert (service.wakeup_s, service.wakeup_conditional, service.maxproc) == (0, False, None)
    assert service.args == ("flags=R", "argv=/x", "-o", "two words", "${nexthop}")
    assert service.overrides == ()
    assert one("a fifo n n n 0 0 qmgr").maxproc == 0
    assert one("a fifo n n n 0 0 qmgr").unpriv is False


@pytest.mark.parametrize(
    ("name", "host_port"),
    [
        ("smtp", ("", "smtp")),
        ("8025", ("", "8025")),
        ("127.0.0.1:10025", ("127.0.0.1", "10025")),
        ("[::1]:25", ("::1", "25")),
        ("localhost:smtp", ("localhost", "smtp")),
    ],
)
def test_inet_names(name: str, host_port: tuple[str, str]) -> None:
    assert one(f"{name} inet n - n - - smtpd").host_port == host_port


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x inet n", "m.cf, line 1: bad field count"),
        ("\nx bogus n - - - - smtpd", 'm.cf, line 2: invalid type field "bogus" in "x bogus n - - - - smtpd"'),
        ("x inet z - - - - smtpd", 'm.cf, line 1: invalid private field "z" in "x inet z - - - - smtpd"'),
        ("x inet n - - zz - smtpd", 'm.cf, line 1: invalid wakeup field "zz" in "x inet n - - zz - smtpd"'),
        ("x inet n - - - zz smtpd", 'm.cf, line 1: invalid process_limit field "zz" in "x inet n - - - zz smtpd"'),
        ("x inet y - - - - smtpd", "m.cf, line 1: service x: an inet service cannot be private"),
        ("0 inet n - - - - smtpd", 'm.cf, line 1: service 0: bad address: "0" (specify host:port or port)'),
        ("x inet n - - - - smtpd { a b", 'm.cf, line 1: missing "}" in "{ a b"'),
        ("x inet n - - - - smtpd -o a", "m.cf, line 1: service x: -o option: missing '=' after attribute name: \"a\""),
        ("a unix - - - - - x\na unix - - - - - y", "m.cf, line 2: duplicate service a unix, first on line 1"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_master_cf(text, "m.cf")
    assert str(caught.value) == message


def test_missing_file_means_the_built_in_one(tmp_path: Path) -> None:
    services = load_master_cf(str(tmp_path), ["smtp/inet"])
    assert len(services) == len(parse_master_cf(BUILTIN_MASTER_CF)) - 1
    (tmp_path / "master.cf").write_text("a unix - - - - - error\n")
    assert [service.name for service in load_master_cf(str(tmp_path))] == ["a"]


def test_disabling() -> None:
    services = parse_master_cf("a inet n - - - - x\nfoo inet n - - - - x\na unix - - - - - x\n")
    enabled, disabled = disabled_services(services, ["!foo/inet", "inet"])
    assert [service.name for service in enabled] == ["foo", "a"]
    assert [service.type for service in disabled] == ["inet"]


def test_printing() -> None:
    entry = parse_entry("127.0.0.1:10025 inet n - n - 10 smtpd -o { a = b c } -v")
    assert print_entry(entry) == "127.0.0.1:10025 inet n   -       n       -       10      smtpd -o {a=b c} -v"
    assert print_entry(entry, fold=True) == (
        "127.0.0.1:10025 inet n   -       n       -       10      smtpd\n    -o {a=b c}\n    -v"
    )


def test_edit_leaves_other_lines(tmp_path: Path) -> None:
    path = tmp_path / "master.cf"
    path.write_text("# c\na  unix - - - - - x\n  -o b=c\n# within\n\nd  fifo - - - - - y")

    def change(entry: MasterEntry) -> MasterEntry | str | None:
        return "#" if entry.name == "a" else entry

    edit_master(str(tmp_path), change, [parse_entry("e unix - - - - - z")])
    assert path.read_text() == (
        "# c\n#a  unix - - - - - x\n#  -o b=c\n# within\n\nd  fifo - - - - - y\n"
        "e          unix  -       -       -       -       -       z\n"
    )


WORDS = st.lists(
    st.sampled_from(
        ["a", "unix", "inet", "-", "n", "y", "60?", "0", "smtpd", "-o", "b=c", "{", "}", "{ x = y }", "\n ", "#"]
    ),
    max_size=14,
)


@given(WORDS)
def test_parses_or_raises_its_error(words: list[str]) -> None:
    try:
        parse_master_cf(" ".join(words))
    except ConfigError as error:
        assert error.line


@given(WORDS)
def test_what_is_printed_means_the_same(words: list[str]) -> None:
    try:
        entry = parse_entry(f"a unix - - - - - smtpd {' '.join(words)}".replace("\n", ""))
    except ConfigError:
        return
    assert parse_entry(print_entry(entry)).words == entry.words
    assert parse_entry(print_entry(entry, fold=True).replace("\n", "")).words == entry.words


@pytest.mark.parametrize(
    ("column", "program", "by_default", "jailed"),
    [("-", "smtpd", False, False), ("-", "smtpd", True, True), ("n", "smtpd", True, False), ("y", "smtpd", False, True),
     ("-", "local", True, False), ("-", "/usr/libexec/postfix/pipe", True, False)],
)  # fmt: skip
def test_the_default_of_chroot_is_that_of_the_compatibility_level(
    column: str, program: str, by_default: bool, jailed: bool
) -> None:
    (service,) = parse_master_cf(f"a unix - - {column} - - {program}", jail_default=by_default)
    assert service.chroot is jailed

from pathlib import Path

import pytest

from estafeta.system.immediate import run_now
from estafeta.tables import LookupFailed, Maps, OpenOptions, TableError, open_table, parse_map_list, table_types
from estafeta.tables.match_list import AddressList, DomainList, NamadrList, StringList

QUIET = OpenOptions(warn=lambda text: None)


async def local(domain: str) -> bool:
    return domain == "local"


def find(maps: Maps, address: str) -> tuple[str, str] | None:
    match = run_now(maps.find_address(address, extension_delimiter="+-", is_local=local))
    return None if match is None else (match.value, match.unmatched_extension)


def test_search_order() -> None:
    full = ["u+e@local", "u@local", "u+e", "u", "@local"]
    for at, key in enumerate(full):
        entries = ", ".join(f"{later}=hit-{later}" for later in full[at:])
        expected = "+e" if key in ("u@local", "u") else ""  # it goes with its user
        assert find(Maps([f"inline:{{ {entries} }}"], QUIET), "U+e@local") == (f"hit-{key}", expected)
    assert find(Maps(["inline:{ u=x }"], QUIET), "u+e@other") is None
    assert find(Maps(["inline:{ u=x }"], QUIET), "u@local") == ("x", "")
    assert find(Maps(['inline:{ { "a b"@c = x } }'], QUIET), "a b@c") == ("x", "")


def test_patterns_see_whole_addresses_only() -> None:
    assert find(Maps(["regexp:{{/^u@d/ x}}"], QUIET), "u+e@d") is None
    assert find(Maps(["regexp:{{/^u.e@d/ x}}"], QUIET), "u+e@d") == ("x", "")


def test_results_and_extensions() -> None:
    maps = Maps(["inline:{ joe@a=joe.user@b, { @c = @d, x y@z } }"], QUIET)

    def results(address: str, propagate: bool) -> list[str] | None:
        return run_now(maps.map_address(address, propagate=propagate, extension_delimiter="+"))

    assert results("joe+foo@a", True) == ["joe.user+foo@b"]
    assert results("joe+foo@a", False) == ["joe.user@b"]
    assert results("ann+x@c", False) == ["ann+x@d", "x y@z"]
    assert results("none@e", True) is None


def test_failures_are_not_misses(tmp_path: Path) -> None:
    maps = Maps(["inline:{a=b}", "fail:x"], QUIET)
    assert run_now(maps.find("a")) == "b"
    with pytest.raises(LookupFailed):
        run_now(maps.find("z"))
    with pytest.raises(LookupFailed):
        run_now(Maps(["inline:{a=}"], QUIET).find("a"))
    now = [0.0]
    warnings: list[str] = []
    maps = Maps([f"texthash:{tmp_path}/t"], OpenOptions(warn=warnings.append, clock=lambda: now[0]))
    assert len(warnings) == 1
    with pytest.raises(LookupFailed, match="No such file"):
        run_now(maps.find("a"))
    (tmp_path / "t").write_text("a b\n")
    now[0] = 2
    assert run_now(maps.find("a")) == "b"


def test_parse_map_list() -> None:
    assert parse_map_list("hash:/a, inline:{ {a = b}, c=d }\n regexp:/x") == [
        "hash:/a", "inline:{ {a = b}, c=d }", "regexp:/x"
    ]  # fmt: skip


def test_types() -> None:
    assert {"hash", "lmdb", "regexp", "pcre", "cidr", "unix"} <= set(table_types())
    with pytest.raises(TableError, match="unsupported dictionary type: nisplus"):
        open_table("nisplus:x")
    with pytest.raises(TableError, match='expecting "type:name" form instead of "x"'):
        open_table("x")


def test_domain_list(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("in.file\n!not.file # x\n")
    plain = DomainList(
        f"!no.example, example.com .sub.example {tmp_path}/f inline:{{t.x=1}} !inline:{{n.x=1}} n.x", QUIET
    )
    for domain, answer in [("EXAMPLE.com", True), ("a.example.com", False), ("a.sub.example", True),
                           ("in.file", True), ("sub.example", False), ("no.example", False), ("t.x", True),
                           ("n.x", False), ("", False)]:  # fmt: skip
        assert run_now(plain.match(domain)) is answer, domain
    parents = DomainList("example.com inline:{t.x=1}", QUIET, match_parents=True)
    assert run_now(parents.match("a.b.example.com"))
    assert run_now(parents.match("a.t.x"))
    assert not run_now(parents.match("badexample.com"))
    with pytest.raises(LookupFailed):
        run_now(DomainList("fail:x", QUIET).match("a"))
    with pytest.raises(TableError, match="No such file"):
        DomainList("/no/such/file", QUIET)


def test_address_lists() -> None:
    nets = AddressList("!10.1.0.0/16 10.0.0.0/8, [2001:db8::]/32 ::1 cidr:{{1.2.3.0/24 x}} 10.0.0.1/8", QUIET)
    for address, answer in [("10.2.0.1", True), ("10.1.0.1", False), ("2001:db8:1::1", True), ("::1", True),
                            ("1.2.3.4", True), ("9.9.9.9", False), ("unknown", False)]:  # fmt: skip
        assert run_now(nets.match(address)) is answer, address
        assert run_now(nets.match(address)) is answer
    both = NamadrList("example.com 10.0.0.0/8 .sub.org", QUIET)
    assert run_now(both.match("example.com", "1.1.1.1"))
    assert run_now(both.match("unknown", "10.1.1.1"))
    assert run_now(both.match("a.sub.org", "1.1.1.1"))
    assert not run_now(both.match("x.org", "1.1.1.1"))
    assert run_now(StringList("a B", QUIET).match("b"))
    assert not run_now(StringList("a !b b", QUIET).match("b"))

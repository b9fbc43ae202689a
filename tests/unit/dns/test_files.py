"""resolv.conf, hosts and the cache."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from estafeta.dns.cache import TtlCache
from estafeta.dns.hosts import parse_hosts
from estafeta.dns.resolvconf import ResolvConf, parse_resolv_conf

TEXT = """\
# a comment
; another
domain first.example
search corp.example. example
nameserver 192.0.2.1
nameserver 2001:db8::53
nameserver nonsense
nameserver 192.0.2.3
nameserver 192.0.2.4
options ndots:2 timeout:3
options attempts:99 rotate edns0 trust-ad unknown:x
"""


def test_everything_in_resolv_conf() -> None:
    assert parse_resolv_conf(TEXT) == ResolvConf(
        nameservers=("192.0.2.1", "2001:db8::53", "192.0.2.3"),
        search=("corp.example", "example"),
        ndots=2,
        timeout_s=3,
        attempts=5,
        rotate=True,
        edns0=True,
    )


def test_empty_file_means_the_local_server_and_the_own_domain() -> None:
    assert parse_resolv_conf("", "host.example.org") == ResolvConf(search=("example.org",))
    assert parse_resolv_conf("options ndots:x timeout:0\n").timeout_s == 1


def test_candidates_follow_ndots_and_the_flags() -> None:
    conf = ResolvConf(search=("corp.example", "example"), ndots=1)
    assert conf.candidates("mx", append_default=False, search=False) == ["mx"]
    assert conf.candidates("mx", append_default=True, search=False) == ["mx.corp.example", "mx"]
    assert conf.candidates("a.b", append_default=True, search=False) == ["a.b"]
    assert conf.candidates("a.b", append_default=False, search=True) == ["a.b", "a.b.corp.example", "a.b.example"]
    assert conf.candidates("mx.", append_default=True, search=True) == ["mx"]


@given(st.text(max_size=200))
def test_any_text_is_a_configuration(text: str) -> None:
    conf = parse_resolv_conf(text)
    assert 1 <= len(conf.nameservers) <= 3
    assert 1 <= conf.timeout_s <= 30


def test_hosts_file() -> None:
    hosts = parse_hosts(
        "127.0.0.1 localhost lo # comment\n::1 localhost\nbad line\n192.0.2.1 Mail.Example.COM mail\n\n192.0.2.9\n"
    )
    assert hosts.lookup("LOCALHOST") == ("127.0.0.1", "::1")
    assert hosts.lookup("mail.example.com.") == ("192.0.2.1",)
    assert hosts.reverse("192.0.2.1") == "Mail.Example.COM"
    assert hosts.reverse("192.0.2.9") is None
    assert hosts.lookup("nowhere") == ()


@given(st.text(max_size=200))
def test_any_text_is_a_hosts_file(text: str) -> None:
    for name, addresses in parse_hosts(text).addresses.items():
        assert name
        assert addresses


def test_cache_ends_entries_and_keeps_its_bound() -> None:
    now = [0.0]
    cache: TtlCache[str, int] = TtlCache(lambda: now[0], max_entries=2)
    cache.put("a", 1, 10)
    cache.put("b", 2, 20)
    now[0] = 9.9
    assert cache.get("a") == 1
    now[0] = 10.0
    assert cache.get("a") is None
    cache.put("c", 3, 5)
    cache.put("d", 4, 5)
    assert len(cache) == 2
    assert cache.get("b") is None
    cache.put("d", 5, 0)
    assert cache.get("d") is None

"""The resolver against a real responder on the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import dns.message
import pytest
import uvloop

from estafeta.dns.answer import Outcome
from estafeta.dns.client_name import ClientName, NameStatus
from estafeta.dns.resolver import Resolver
from estafeta.dns.wire import RRType
from estafeta.system.immediate import run_now
from support.dns_server import DnsServer

Make = Callable[..., Resolver]

ZONES: dict[str, Any] = {
    "mail.test": {"A": ["192.0.2.1", "192.0.2.2"], "AAAA": ["2001:db8::1"], "MX": ["10 mail.test"]},
    "alias.test": {"CNAME": ["mail.test"]},
    "loop1.test": {"CNAME": ["loop2.test"]},
    "loop2.test": {"CNAME": ["loop1.test"]},
    "dead-end.test": {"CNAME": ["nowhere.test"]},
    "text.test": {"TXT": ['"one" "two"']},
    "fail.test": "SERVFAIL",
    "refused.test": "REFUSED",
    "broken.test": "FORMERR",
    "dropped.test": "DROP",
    "short.corp.test": {"A": ["192.0.2.77"]},
    "1.2.0.192.in-addr.arpa": {"PTR": ["mail.test"]},
    "9.2.0.192.in-addr.arpa": {"PTR": ["mail.test"]},
    "8.2.0.192.in-addr.arpa": {"PTR": ["nowhere.test"]},
    "7.2.0.192.in-addr.arpa": "SERVFAIL",
    "6.2.0.192.in-addr.arpa": {"PTR": ["fail.test"]},
    "5.2.0.192.in-addr.arpa": {"PTR": ["a\\032b.test"]},
    "4.2.0.192.in-addr.arpa": {"PTR": ["1.2.3.4"]},
    "xn--and-6ma2c.test": {"A": ["192.0.2.5"]},
}


def test_outcomes_and_their_words(make_resolver: Make) -> None:
    async def main() -> None:
        resolver = make_resolver(server, "options attempts:1")
        good = await resolver.a("mail.test")
        assert good.outcome is Outcome.OK
        assert sorted(record.value for record in good.records) == ["192.0.2.1", "192.0.2.2"]
        prefix = "Host or domain name not found. Name service error for name="
        for name, outcome, words in (
            ("nowhere.test", Outcome.NXDOMAIN, "Host not found"),
            ("text.test", Outcome.NODATA, "Host found but no data record of requested type"),
            ("fail.test", Outcome.FAIL, "Host not found, try again"),
            ("refused.test", Outcome.FAIL, "Host not found, try again"),
            ("broken.test", Outcome.BROKEN, "Non-recoverable error"),
        ):
            answer = await resolver.mx(name)
            assert (answer.outcome, answer.reason) == (outcome, f"{prefix}{name} type=MX: {words}")
        for name in ("bad..name", "x" * 64):
            answer = await resolver.a(name)
            assert answer.outcome is Outcome.INVALID
            assert answer.reason == f"Name service error for {name}: invalid host or domain name"
        assert (await resolver.txt("text.test")).records[0].value == "onetwo"
        assert (await resolver.ptr("192.0.2.1")).records[0].value == "mail.test"
        assert (await resolver.a("ñandú.test")).records[0].value == "192.0.2.5"
        resolver.close()

    with DnsServer(ZONES) as server:
        asyncio.run(main())


def test_uvloop_and_truncation(make_resolver: Make) -> None:
    async def main() -> None:
        resolver = make_resolver(server)
        assert len((await resolver.a("mail.test")).records) == 2

    with DnsServer(ZONES, truncate=True) as server:
        uvloop.run(main())
        asyncio.run(main())
        assert server.queries == [("mail.test", "A")] * 4


def test_aliases(make_resolver: Make) -> None:
    async def main() -> None:
        resolver = make_resolver(server)
        answer = await resolver.a("Alias.Test")
        assert (answer.outcome, answer.name.lower(), len(answer.records)) == (Outcome.OK, "mail.test", 2)
        assert (await resolver.a("dead-end.test")).outcome is Outcome.NXDOMAIN
        assert (await resolver.a("loop1.test")).outcome is not Outcome.OK

    with DnsServer(ZONES) as server:
        asyncio.run(main())


def test_cache_and_joined_questions(make_resolver: Make) -> None:
    now = [100.0]

    async def main() -> None:
        resolver = make_resolver(server, clock=lambda: now[0])
        await asyncio.gather(*(resolver.a("mail.test") for _ in range(20)))
        assert len(server.queries) == 1
        assert run_now(resolver.a("MAIL.test")).outcome is Outcome.OK
        assert (await resolver.a("nowhere.test")).outcome is Outcome.NXDOMAIN
        assert run_now(resolver.a("nowhere.test")).outcome is Outcome.NXDOMAIN
        assert len(server.queries) == 2
        now[0] += 61
        await resolver.a("mail.test")
        await resolver.a("nowhere.test")
        assert len(server.queries) == 4
        await resolver.a("fail.test")
        await resolver.a("fail.test")
        assert len([q for q in server.queries if q[0] == "fail.test"]) == 4

    with DnsServer(ZONES) as server:
        asyncio.run(main())


def test_cancelled_caller_leaves_the_question_to_the_others(make_resolver: Make) -> None:
    async def main() -> None:
        resolver = make_resolver(server)
        first = asyncio.create_task(resolver.a("mail.test"))
        second = asyncio.create_task(resolver.a("mail.test"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).outcome is Outcome.OK
        assert first.cancelled()

    with DnsServer(ZONES, delay_s=0.05) as server:
        asyncio.run(main())


def test_next_server_takes_over(make_resolver: Make, tmp_path: Any) -> None:
    async def main() -> None:
        conf = tmp_path / "two.conf"
        # The first server refuses datagrams: nothing listens on its port.
        conf.write_text("nameserver 127.0.0.3\nnameserver 127.0.0.1\n")
        resolver = Resolver(str(conf), "/nonexistent", port=server.port, timeout_s=5)
        assert (await resolver.a("mail.test")).outcome is Outcome.OK

    with DnsServer(ZONES) as server:
        asyncio.run(main())


def test_silence_is_a_temporary_failure(make_resolver: Make) -> None:
    async def main() -> None:
        resolver = make_resolver(server, "options attempts:1", timeout_s=None)
        resolver.close()
        conf = make_resolver(server, "options attempts:1 timeout:1", timeout_s=None)
        assert (await conf.a("dropped.test")).outcome is Outcome.FAIL

    with DnsServer(ZONES) as server:
        asyncio.run(main())
        assert len(server.queries) == 1


def test_forged_datagrams_are_passed_over(make_resolver: Make) -> None:
    """Answers with another id, another question, or garbage come before the true one."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            fake = DnsServer({"mail.test": {"A": ["192.0.2.1"]}})
            liar = DnsServer({"mail.test": {"A": ["203.0.113.66"]}, "other.test": {"A": ["203.0.113.66"]}})
            fake.port = sock.getsockname()[1]
            asking = asyncio.create_task(make_resolver(fake).a("mail.test"))
            wire, peer = await loop.sock_recvfrom(sock, 4096)
            other_id = bytes([wire[0] ^ 1]) + wire[1:]
            other_name = dns.message.make_query("other.test", "A", id=int.from_bytes(wire[:2], "big")).to_wire()
            for datagram in (b"", b"junk", wire, liar.answer(other_id, tcp=False), liar.answer(other_name, tcp=False)):
                assert datagram is not None
                await loop.sock_sendto(sock, datagram, peer)
            truth = fake.answer(wire, tcp=False)
            assert truth is not None
            await loop.sock_sendto(sock, truth, peer)
            assert [record.value for record in (await asking).records] == ["192.0.2.1"]
            for server in (fake, liar):
                server._stop_reader.close()
                server._stop_writer.close()

    asyncio.run(main())


@pytest.mark.parametrize("authentic", [True, False])
def test_secure_only_when_asked_for(make_resolver: Make, authentic: bool) -> None:
    async def main() -> None:
        resolver = make_resolver(server)
        assert (await resolver.a("mail.test", dnssec=True)).secure is authentic
        assert not (await resolver.a("mail.test")).secure

    with DnsServer(ZONES, authentic=authentic) as server:
        asyncio.run(main())


def test_addresses_by_dns_hosts_and_number(make_resolver: Make) -> None:
    hosts = "192.0.2.33 here.test\n::9 here.test\n192.0.2.34 mail.test\n"

    async def main() -> None:
        resolver = make_resolver(server, "search corp.test", hosts)
        native = await resolver.addresses("here.test")
        assert native.addresses == ("192.0.2.33", "::9")
        assert (await resolver.addresses("here.test", ("ipv6",))).addresses == ("::9",)
        assert (await resolver.addresses("mail.test")).addresses == ("192.0.2.34",)
        assert (await resolver.addresses("short")).addresses == ("192.0.2.77",)
        dns = await resolver.addresses("mail.test", lookup=("dns",))
        assert sorted(dns.addresses) == ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
        assert (await resolver.addresses("short", lookup=("dns",))).outcome is Outcome.NXDOMAIN
        both = await resolver.addresses("here.test", lookup=("dns", "native"))
        assert both.addresses == ("192.0.2.33", "::9")
        assert run_now(resolver.addresses("192.0.2.200")).addresses == ("192.0.2.200",)
        assert run_now(resolver.addresses("192.0.2.200", ("ipv6",))).outcome is Outcome.NODATA
        lost = await resolver.addresses("nowhere.test")
        assert lost.reason == "unable to look up host nowhere.test: Name or service not known"
        gone = await resolver.addresses("nowhere.test", lookup=("dns",))
        assert gone.reason.endswith("name=nowhere.test type=AAAA: Host not found")

    with DnsServer(ZONES) as server:
        asyncio.run(main())


def test_client_names(make_resolver: Make) -> None:
    def unknown(reverse: str, code: int, reverse_code: int, warning: str | None = None) -> ClientName:
        return ClientName("unknown", reverse, NameStatus(code), NameStatus(reverse_code), warning)

    async def main() -> None:
        resolver = make_resolver(server, "options attempts:1", "127.0.0.1 localhost\n192.0.2.44 listed.test\n")
        ok = NameStatus.OK
        for ip, expected in {
            "127.0.0.1": ClientName("localhost", "localhost", ok, ok),
            "192.0.2.44": ClientName("listed.test", "listed.test", ok, ok),
            "192.0.2.1": ClientName("mail.test", "mail.test", ok, ok),
            "192.0.2.9": unknown("mail.test", 6, 2, "hostname mail.test does not resolve to address 192.0.2.9"),
            "192.0.2.8": unknown(
                "nowhere.test",
                5,
                2,
                "hostname nowhere.test does not resolve to address 192.0.2.8: Name or service not known",
            ),
            "192.0.2.7": unknown("unknown", 4, 4),
            "192.0.2.6": unknown(
                "fail.test",
                4,
                2,
                "hostname fail.test does not resolve to address 192.0.2.6: Temporary failure in name resolution",
            ),
            "192.0.2.250": unknown("unknown", 5, 5),
            "2001:db8::77": unknown("unknown", 5, 5),
        }.items():
            assert await resolver.client_name(ip) == expected, ip
        assert (await resolver.client_name("192.0.2.4")).warning == "numeric hostname: 1.2.3.4"
        assert (await resolver.client_name("192.0.2.5")).name == "unknown"

    with DnsServer(ZONES) as server:
        asyncio.run(main())


def test_files_are_read_again_when_they_change_and_kept_when_gone(make_resolver: Make, tmp_path: Any) -> None:
    now = [0.0]
    server = DnsServer({})
    resolver = make_resolver(server, hosts="192.0.2.1 one\n", clock=lambda: now[0])
    server._stop_reader.close()
    server._stop_writer.close()
    assert resolver.hosts_name("192.0.2.1") == "one"
    (tmp_path / "hosts").write_text("192.0.2.1 another\n")
    now[0] = 60.0
    assert resolver.hosts_name("192.0.2.1") == "another"
    (tmp_path / "hosts").unlink()
    now[0] = 120.0
    assert resolver.hosts_name("192.0.2.1") == "another"


def test_nothing_opened_after_preload(make_resolver: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a jail the files are out of reach; look-ups go on."""

    async def main() -> None:
        now[0] = 1000.0
        assert (await resolver.a("ñandú.test")).outcome is Outcome.OK
        assert (await resolver.query("mail.test", RRType.AAAA)).outcome is Outcome.OK

    now = [0.0]
    with DnsServer(ZONES) as server:
        resolver = make_resolver(server, clock=lambda: now[0])
        monkeypatch.setattr("estafeta.dns.resolver.os.stat", _denied)
        monkeypatch.setattr("builtins.open", _denied)
        asyncio.run(main())


def _denied(*_: object, **__: object) -> None:
    raise PermissionError("jail")

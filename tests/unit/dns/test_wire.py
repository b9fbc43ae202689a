"""The DNS codec against dnspython and against garbage."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.dns.wire import (
    Record,
    Response,
    RRType,
    WireError,
    decode_name,
    encode_name,
    encode_query,
    parse_response,
)

SAMPLES = {
    "A": ["192.0.2.1", "192.0.2.2"],
    "AAAA": ["2001:db8::1"],
    "MX": ["10 mx1.example.com.", "20 mx2.example.com."],
    "PTR": ["host.example.com."],
    "TXT": ['"v=spf1" " -all"', '"x"'],
    "SRV": ["1 2 25 mx.example.com."],
    "TLSA": ["3 1 1 " + "ab" * 32],
    "CNAME": ["other.example.net."],
}


def wire_answer(rtype: str, texts: list[str], name: str = "example.com.", flags: int = 0) -> bytes:
    query = dns.message.make_query(name, rtype)
    response = dns.message.make_response(query)
    response.flags |= flags
    response.answer.append(dns.rrset.from_text(dns.name.from_text(name), 300, "IN", rtype, *texts))
    return response.to_wire()


@pytest.mark.parametrize("rtype", SAMPLES)
def test_records_agree_with_dnspython(rtype: str) -> None:
    response = parse_response(wire_answer(rtype, SAMPLES[rtype]))
    assert response.question_name == "example.com"
    assert response.question_type == RRType[rtype]
    assert {record.ttl_s for record in response.answers} == {300}
    expected = {
        "A": ["192.0.2.1", "192.0.2.2"],
        "AAAA": ["2001:db8::1"],
        "MX": ["mx1.example.com", "mx2.example.com"],
        "PTR": ["host.example.com"],
        "TXT": ["v=spf1 -all", "x"],
        "SRV": ["mx.example.com"],
        "TLSA": ["3 1 1 " + "ab" * 32],
        "CNAME": ["other.example.net"],
    }[rtype]
    # dnspython shuffles the records of a set.
    assert sorted(record.value for record in response.answers) == expected


def test_preferences_weights_and_ports() -> None:
    answers = parse_response(wire_answer("MX", SAMPLES["MX"])).answers
    assert sorted(r.preference for r in answers) == [10, 20]
    (record,) = parse_response(wire_answer("SRV", SAMPLES["SRV"])).answers
    assert (record.preference, record.weight, record.port) == (1, 2, 25)


def test_null_mx_has_an_empty_value() -> None:
    (record,) = parse_response(wire_answer("MX", ["0 ."])).answers
    assert (record.value, record.preference) == ("", 0)


def test_flags_rcode_and_negative_ttl() -> None:
    query = dns.message.make_query("x.example.", "MX")
    response = dns.message.make_response(query)
    response.set_rcode(3)
    response.flags |= dns.flags.AD
    response.authority.append(dns.rrset.from_text("example.", 77, "IN", "SOA", "a. b. 1 2 3 4 55"))
    parsed = parse_response(response.to_wire())
    assert (parsed.rcode, parsed.authentic, parsed.negative_ttl_s, parsed.answers) == (3, True, 55, ())


def test_truncated_response_is_read_without_records() -> None:
    parsed = parse_response(wire_answer("A", SAMPLES["A"], flags=dns.flags.TC))
    assert parsed.truncated
    assert parsed.answers == ()


@pytest.mark.parametrize("dnssec", [False, True])
def test_query_is_what_dnspython_reads(dnssec: bool) -> None:
    message = dns.message.from_wire(encode_query(4711, "Mail.Example.COM", RRType.TLSA, dnssec=dnssec))
    assert message.id == 4711
    assert message.question[0].name.to_text() == "Mail.Example.COM."
    assert message.question[0].rdtype == dns.rdatatype.TLSA
    assert bool(message.flags & dns.flags.AD) is dnssec
    assert bool(message.ednsflags & dns.flags.DO) is dnssec
    assert message.flags & dns.flags.RD


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", ".".join(["abcdefg"] * 40), "ñ.example", ".x"])
def test_illegal_names_are_refused(name: str) -> None:
    with pytest.raises(WireError):
        encode_name(name)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=8))
def test_any_name_survives_the_round_trip(labels: list[bytes]) -> None:
    wire = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    text, end = decode_name(wire, 0)
    assert end == len(wire)
    assert encode_name(text) == wire


def test_pointer_loops_are_refused() -> None:
    header = b"\0\1\x81\x80\0\1\0\0\0\0\0\0"
    for name in (b"\xc0\x0c", b"\x01a\xc0\x0c", b"\xc0\x0e\xc0\x0c", b"\xc0\xff"):
        with pytest.raises(WireError):
            parse_response(header + name + b"\0\1\0\1")


@given(st.binary(max_size=200))
def test_garbage_parses_or_raises_the_one_error(data: bytes) -> None:
    try:
        assert isinstance(parse_response(data), Response)
    except WireError:
        pass


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_damaged_answers_parse_or_raise_the_one_error(rtype: str, data: st.DataObject) -> None:
    wire = bytearray(wire_answer(rtype, SAMPLES[rtype]))
    for _ in range(data.draw(st.integers(0, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(wire)))
    try:
        response = parse_response(bytes(wire[:cut]))
    except WireError:
        return
    assert all(isinstance(record, Record) for record in response.answers)

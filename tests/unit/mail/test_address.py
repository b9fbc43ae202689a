import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.mail.address import (
    AddressError,
    Path,
    addresses_in,
    find_addresses,
    parse_path,
    quote_address,
    quote_local,
    rewrite_addresses,
    split_address,
    split_extension,
    unquote_address,
    unquote_local,
)


@pytest.mark.parametrize(
    ("data", "address", "parameters"),
    [
        (b"<a@b> SIZE=3", b"a@b", b"SIZE=3"),
        (b"<>", b"", b""),
        (b'<"a b"@c> X=1', b"a b@c", b"X=1"),
        (b'<"a>b"@c> Y=1', b"a>b@c", b"Y=1"),
        (b'<"a\\"b"@c>', b'a"b@c', b""),
        (b"<@x,@y:a@b>", b"a@b", b""),
        (b"<postmaster>", b"postmaster", b""),
        (b"<a@[1.2.3.4]>", b"a@[1.2.3.4]", b""),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_paths(data: bytes, address: bytes, parameters: bytes, strict: bool) -> None:
    assert parse_path(data, strict) == Path(address, parameters)


@pytest.mark.parametrize(
    ("data", "address"),
    [(b" <a@b>", b"a@b"), (b"a@b X=1", b"a@b"), (b"<a..b@c>", b"a..b@c"), (b"<user@dom(com)>", b"user@dom")],
)
def test_tolerated_unless_strict(data: bytes, address: bytes) -> None:
    assert parse_path(data).address == address
    with pytest.raises(AddressError):
        parse_path(data, strict=True)


@pytest.mark.parametrize("data", [b"<a@b", b"<a@b>X", b"", b"<a\0@b>", b"<a@b>>", b"<a\r\n@b>"])
def test_bad_paths(data: bytes) -> None:
    for strict in (False, True):
        with pytest.raises(AddressError):
            parse_path(data, strict)


@given(st.binary(max_size=60) | st.text("<>@\"\\ab .,:()[]", max_size=30).map(str.encode), st.booleans())
def test_parse_path_parses_or_raises_its_error(data: bytes, strict: bool) -> None:
    try:
        path = parse_path(data, strict)
    except AddressError:
        return
    assert b"\n" not in path.address and b"\0" not in path.address


@given(st.binary(min_size=1, max_size=30))
def test_quoting_round_trip(local: bytes) -> None:
    assert unquote_local(quote_local(local)) == local
    address = local + b"@example.com"
    assert unquote_address(quote_address(address)) == address


@given(st.binary(min_size=1, max_size=30).filter(lambda b: not set(b) & set(b"\r\n\0")))
def test_quoted_addresses_are_read_back_from_headers_and_paths(local: bytes) -> None:
    address = local + b"@example.com"
    assert addresses_in(b"Name <" + quote_address(address) + b">, x@y") == [address, b"x@y"]
    assert parse_path(b"<" + quote_address(address) + b">", strict=False).address == address


@pytest.mark.parametrize(
    ("body", "addresses"),
    [
        (b"John Doe <jd@x.com>", [b"jd@x.com"]),
        (b'a@b, "X, Y" <c@d> (hi), grp: e@f, g@h;', [b"a@b", b"c@d", b"e@f", b"g@h"]),
        (b"user @ dom . com", [b"user@dom.com"]),
        (b"undisclosed-recipients:;", []),
        (b"<>", []),
        (b"(a comment (nested)) a (x) @ (y) b", [b"a@b"]),
        (b"<@r,@s:u@d>", [b"u@d"]),
        (b"a@b,,c@d,", [b"a@b", b"c@d"]),
        (b"a@b;c@d", [b"a@b", b"c@d"]),
        (b"joe", [b"joe"]),
    ],
)
def test_header_addresses(body: bytes, addresses: list[bytes]) -> None:
    assert addresses_in(body) == addresses


def test_rewrite_keeps_everything_else() -> None:
    body = b' "Doe, J." (work)\r\n <jd@x>,\r\n\tgrp : a@b ,c@d; (end'
    new = rewrite_addresses(body, lambda a: b"new user@x.org" if a == b"jd@x" else a)
    assert new == body.replace(b"jd@x", b'"new user"@x.org')


@given(st.text("<>@\"\\ab .,:;()[]\t\r\n", max_size=40).map(str.encode) | st.binary(max_size=60))
def test_rewriting_to_the_same_changes_nothing(body: bytes) -> None:
    assert rewrite_addresses(body, lambda a: a) == body
    end = 0
    for span in find_addresses(body):
        assert end <= span.start < span.end <= len(body)
        end = span.end


@pytest.mark.parametrize(
    "piece", [b"(", b'"', b"<", b"\\", b"a@", b":", b"(\\", b"@a:", b"[", b"a,", b"<@", b'"\\', b"x ", b"<>"]
)
def test_hostile_headers_take_linear_time(piece: bytes) -> None:
    def cost(size: int) -> float:
        body = piece * (size // len(piece))
        best = 9.0
        for _ in range(3):
            start = time.process_time()  # not the wall clock: other tests run beside this one
            rewrite_addresses(body, lambda a: a)
            try:
                parse_path(body)
            except AddressError:
                pass
            best = min(best, time.process_time() - start)
        return best

    # 20 times the input: linear costs 20 times as much, quadratic 400 times.
    assert cost(100_000) < 120 * max(cost(5_000), 0.001)


def test_extensions() -> None:
    assert split_extension(b"a+b+c", b"+") == (b"a", b"b+c")
    assert split_extension(b"a+", b"+") == (b"a", b"")
    assert split_extension(b"a-b+c", b"+-") == (b"a", b"b+c")
    assert split_extension(b"+b", b"+") == (b"+b", None)
    assert split_extension(b"a", b"+") == (b"a", None)
    assert split_extension(b"a+b", b"") == (b"a+b", None)
    assert split_extension(b"Owner-list", b"-") == (b"Owner-list", None)
    assert split_extension(b"list-request", b"-") == (b"list-request", None)
    assert split_extension(b"list-request", b"-", owner_request_special=False) == (b"list", b"request")
    assert split_extension(b"owner+list", b"+") == (b"owner", b"list")
    assert split_extension(b"Mailer-Daemon", b"-") == (b"Mailer-Daemon", None)


def test_split_address() -> None:
    assert split_address(b"a@b@c") == (b"a@b", b"c")
    assert split_address(b"a") == (b"a", None)
    assert split_address(b"@c") == (b"", b"c")

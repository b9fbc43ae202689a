"""Which addresses MAIL and RCPT take."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.daemons.smtpd.access import is_numeric, logged, shown
from estafeta.daemons.smtpd.envelope_commands import _SIMPLE, check_address
from estafeta.mail.address import AddressError

GOOD = [b"a@b.test", b"a@b.test.", b"postmaster", b"", b"@b.test", b"a@[127.0.0.1]", b"a@[IPv6:::1]", b"a.@b", b".a@b.test"]
BAD = [b"-a@b.test", b"a@", b"a@@b.test", b"a@-b.test", b"a@b-.test", b"a@b..test", b"a@b.test..", b"a@127.0.0.1", b"a@[bogus]",
       b"a@[127.0.0.1", b"a b@c.test", b"a@" + b"x" * 64 + b".test", b"a@b\xc3\xa9.test", b"a@b\x01.test"]  # fmt: skip


@pytest.mark.parametrize("address", GOOD)
def test_taken(address: bytes) -> None:
    check_address(address, b"<" + address + b">", utf8=False, allow_min_user=False)


@pytest.mark.parametrize("address", BAD)
def test_refused(address: bytes) -> None:
    with pytest.raises(AddressError):
        check_address(address, b"<" + address + b">", utf8=False, allow_min_user=False)
    found = _SIMPLE.fullmatch(b"<" + address + b">")
    assert found is None, "the short way has to refuse it too"


def test_what_lets_more_through() -> None:
    check_address(b"-a@b.test", b"<-a@b.test>", utf8=False, allow_min_user=True)
    check_address(b"a@b\xc3\xa9.test", b"<a@b\xc3\xa9.test>", utf8=True, allow_min_user=False)
    check_address(b"a b@c.test", b'<"a b"@c.test>', utf8=False, allow_min_user=False)


@given(st.binary(max_size=80), st.booleans(), st.booleans())
def test_it_passes_or_raises_its_error(address: bytes, utf8: bool, allow: bool) -> None:
    with contextlib.suppress(AddressError):
        check_address(address, address, utf8=utf8, allow_min_user=allow)


def test_forms() -> None:
    assert shown(b"us\x01er@x") == "us er@x"
    assert logged(b"us er@x") == '"us er"@x'
    assert logged(b"@x") == '""@x'
    assert is_numeric("1.2.3.4") and is_numeric("::1") and not is_numeric("a.b")

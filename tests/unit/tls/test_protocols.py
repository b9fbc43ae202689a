"""smtpd_tls_protocols and its kin."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.tls.protocols import exclusions, parse_protocols

_WORD = st.sampled_from(["TLSv1", "TLSv1.1", "tlsv1.2", "TLSv1.3", "SSLv3", "SSLv2", "0x0303", "x"])
_ITEM = st.builds("{}{}".format, st.sampled_from(["", "!", ">=", "<=", ">= ", "! "]), _WORD)


@given(st.text(max_size=40) | st.lists(_ITEM, max_size=5).map(", ".join))
def test_any_text_is_a_range_or_a_value_error(text: str) -> None:
    try:
        found = parse_protocols(text)
    except ValueError:
        return
    assert found.allowed
    assert sorted(found.allowed) == list(found.allowed)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", (0x301, 0x302, 0x303, 0x304)),
        (">=TLSv1.2", (0x303, 0x304)),
        (">= TLSv1.1, <=TLSv1.2", (0x302, 0x303)),
        ("!SSLv2, !SSLv3, !TLSv1, !TLSv1.1", (0x303, 0x304)),
        ("TLSv1.2", (0x303,)),
        ("TLSv1.3:TLSv1.2", (0x303, 0x304)),
        ("!TLSv1.2", (0x301, 0x302, 0x304)),
        (">=0x0304", (0x304,)),
    ],
)
def test_ranges(text: str, allowed: tuple[int, ...]) -> None:
    assert parse_protocols(text).allowed == allowed


def test_exclusions() -> None:
    assert exclusions("aNULL, eNULL", "", "DES:RC4+SHA") == ["aNULL", "eNULL", "DES", "RC4+SHA"]

"""detect_8bit_encoding_header."""

from __future__ import annotations

import pytest

from estafeta.daemons.cleanup.eight_bit import declares_eight_bit


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (b"Content-Transfer-Encoding: 8bit\r\n\r\n\xe9\r\n", True),
        (b"Subject: x\r\nCONTENT-transfer-encoding:8BIT\r\n\r\n\xe9\r\n", True),
        (b"Subject: x\r\n\r\n--b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe9\r\n", True),
        (b"Subject: x\r\nContent-Transfer-Encoding: 8bit\r\n\r\ne\r\n", False),
        (b"Subject: x\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\xe9\r\n", False),
        (b"Subject: \xe9\r\nX-Content-Transfer-Encoding: 8bit\r\n\r\n", False),
        (b"", False),
    ],
)
def test_what_is_declared(content: bytes, declared: bool) -> None:
    assert declares_eight_bit(content) is declared

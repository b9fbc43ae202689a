"""Whether a message says of itself that it has 8-bit text, whatever its client said in MAIL.

Source: postconf(5) detect_8bit_encoding_header. Only content that has such octets is looked at, so that ASCII mail costs nothing.
"""

from __future__ import annotations

import re

_DECLARED = re.compile(rb"\ncontent-transfer-encoding:[ \t]*8bit")


def declares_eight_bit(content: bytes) -> bool:
    """True for content with a Content-Transfer-Encoding of 8bit, its own or a part's."""
    if content.isascii():
        return False
    lowered = content.lower()
    return _DECLARED.search(lowered) is not None or _DECLARED.match(b"\n" + lowered[:80]) is not None

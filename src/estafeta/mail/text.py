"""The only door between ``bytes`` (wire, queue) and ``str`` (configuration, look-up keys, logs): UTF-8, lossless."""

from __future__ import annotations


def to_text(data: bytes) -> str:
    """``data`` as text; bytes that are not UTF-8 survive as surrogates."""
    return data.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """The inverse of ``to_text``."""
    return text.encode("utf-8", "surrogateescape")

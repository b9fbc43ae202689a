"""The message on sendmail's standard input: line ends, the end of it, recipients in its headers.

Source: sendmail(1), postconf(5) sendmail_fix_line_endings. The result is in wire form (CRLF) and ends with a line end.
"""

from __future__ import annotations

from typing import BinaryIO

from estafeta.mail.address import addresses_in
from estafeta.mail.header import split_headers


class MessageError(Exception):
    """The message cannot be read."""


def read_message(
    stream: BinaryIO, *, dot_ends: bool, fix_line_endings: str = "always", limit: int = 0
) -> bytes | None:
    """The content, or None if it is larger than ``limit`` octets (0: no limit). Raises MessageError.

    ``fix_line_endings``: always, strict (only if the first line ends in CRLF) or never.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        while True:
            piece = stream.read(1 << 20)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            if limit and size > limit + (1 << 20):
                return None
    except OSError as error:
        raise MessageError(f"read standard input: {error.strerror}") from None
    content = wire_form(b"".join(pieces), dot_ends=dot_ends, fix_line_endings=fix_line_endings)
    if limit and len(content) - content.count(b"\r\n") > limit:
        return None
    return content


def wire_form(data: bytes, *, dot_ends: bool, fix_line_endings: str = "always") -> bytes:
    """See the module. Leading ``From `` lines of mailboxes go."""
    if fix_line_endings == "always" or (fix_line_endings == "strict" and data.partition(b"\n")[0].endswith(b"\r")):
        data = data.replace(b"\r\n", b"\n")
    while data.startswith((b"From ", b">From ")):
        data = data.partition(b"\n")[2]
    if dot_ends:
        if data.startswith(b".\n") or data == b".":
            data = b""
        else:
            end = data.find(b"\n.\n")
            if end < 0 and data.endswith(b"\n."):
                end = len(data) - 2
            if end >= 0:
                data = data[: end + 1]
    if data and not data.endswith(b"\n"):
        data += b"\n"
    return data.replace(b"\n", b"\r\n")


def recipients_in_headers(content: bytes) -> list[bytes]:
    """The addresses of To, Cc and Bcc; of their Resent- forms alone, if there are any."""
    plain: list[bytes] = []
    resent: list[bytes] = []
    for header in split_headers(content)[0]:
        if header.key in (b"to", b"cc", b"bcc"):
            plain += addresses_in(header.value)
        elif header.key in (b"resent-to", b"resent-cc", b"resent-bcc"):
            resent += addresses_in(header.value)
    return resent or plain

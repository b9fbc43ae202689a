"""Keys from a message for ``postmap -q - -h -b -m``: header fields and body lines.

Source: postmap(1), header_checks(5), body_checks(5). One key per logical header (with its line ends inside) and one per
body line. With ``mime``, the headers of parts and of attached messages are header keys, not body keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_HEADER = re.compile(rb"[\x21-\x39\x3b-\x7e]+[ \t]*:")
_BOUNDARY = re.compile(rb'boundary[ \t\r\n]*=[ \t\r\n]*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))', re.IGNORECASE)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def message_keys(lines: Iterable[bytes], *, headers: bool, body: bool, mime: bool) -> Iterator[str]:
    """The keys of the message in ``lines``."""
    header: list[bytes] = []
    in_header = True
    boundaries: list[bytes] = []
    content_type = b"text/plain"
    top = True

    def end_header() -> Iterator[str]:
        nonlocal content_type
        if header:
            logical = b"\n".join(header)
            header.clear()
            if logical[:13].lower() == b"content-type:":
                content_type = logical[13:].strip()
            if headers and (top or mime):
                yield _text(logical)

    for raw in lines:
        line = raw.rstrip(b"\r\n")
        if in_header:
            if header and line[:1] in (b" ", b"\t"):
                header.append(line)
                continue
            yield from end_header()
            if _HEADER.match(line):
                header.append(line)
                continue
            in_header = False
            kind = content_type.lower()
            if mime and kind.startswith(b"multipart/"):
                found = _BOUNDARY.search(content_type)
                if found:
                    boundaries.append(found.group(1) or found.group(2) or b"")
            elif mime and kind.startswith(b"message/") and not line:
                in_header = True
                content_type = b"text/plain"
                top = False
                continue
            top = False
            if not body and not mime:
                return
        elif mime and line.startswith(b"--") and boundaries:
            for depth in range(len(boundaries) - 1, -1, -1):
                mark = b"--" + boundaries[depth]
                if not line.startswith(mark):
                    continue
                del boundaries[depth + 1 :]
                if line[len(mark) : len(mark) + 2] == b"--":
                    boundaries.pop()
                else:
                    in_header = True
                    content_type = b"text/plain"
                break
        if body:
            yield _text(line)
    yield from end_header()

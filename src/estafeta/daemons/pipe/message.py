"""What the command reads: headers on top, the line ends, dots and From lines that it wants.

Source: pipe(8) flags= and eol=.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from estafeta.config.pipe_attributes import PipeAttributes
from estafeta.daemons.pipe.arguments import sender_of
from estafeta.delivery.mailbox import Source, original_of
from estafeta.ipc.messages import Envelope, Recipient
from estafeta.mail.address import quote_address


def head(attributes: PipeAttributes, envelope: Envelope, recipient: Recipient) -> bytes:
    """The lines on top, with LF."""
    flags = attributes.flags
    sender = quote_address(sender_of(attributes, envelope))
    out = []
    if "F" in flags:
        out.append(b"From %s  %s\n" % (sender, time.asctime().encode()))
    if "R" in flags:
        out.append(b"Return-Path: <%s>\n" % sender)
    if "O" in flags:
        out.append(b"X-Original-To: %s\n" % original_of(recipient))
    if "D" in flags:
        out.append(b"Delivered-To: %s\n" % recipient.address)
    return b"".join(out)


def message(attributes: PipeAttributes, envelope: Envelope, recipient: Recipient, source: Source) -> Iterator[bytes]:
    """The whole input; iterating raises OSError."""
    flags = attributes.flags
    pieces = _with_head(head(attributes, envelope, recipient), source.chunks(), b"\n" if "B" in flags else b"")
    if attributes.eol == b"\n" and not flags & {".", ">"}:
        return pieces
    return _lines(pieces, attributes)


def _with_head(top: bytes, content: Iterator[bytes], tail: bytes) -> Iterator[bytes]:
    if top:
        yield top
    yield from content
    if tail:
        yield tail


def _lines(pieces: Iterator[bytes], attributes: PipeAttributes) -> Iterator[bytes]:
    """Whole lines, with their marks and ends. The From_ line on top is no line of the content."""
    flags = attributes.flags
    dots = re.compile(rb"^\.", re.MULTILINE) if "." in flags else None
    froms = re.compile(rb"^From ", re.MULTILINE) if ">" in flags else None
    first = "F" in flags
    rest = b""
    for piece in pieces:
        data = rest + piece
        end = data.rfind(b"\n") + 1
        data, rest = data[:end], data[end:]
        if not data:
            continue
        top = b""
        if first:
            first = False
            end = data.find(b"\n") + 1
            top, data = data[:end], data[end:]
        if dots is not None:
            data = dots.sub(b"..", data)
        if froms is not None:
            data = froms.sub(b">From ", data)
        data = top + data
        yield data if attributes.eol == b"\n" else data.replace(b"\n", attributes.eol)
    if rest:
        yield rest

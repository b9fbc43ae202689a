"""A local submission as it lies in ``maildrop/``: the codec of its file.

Ours alone, so free in form: lines ``name value`` (values percent-encoded where they hold ``%``, blanks or control characters),
an empty line, then the content in wire form (CRLF). ``size`` and ``crc`` speak of the content, so a file that was cut off
is never taken for a message. Invariants: ``decode(encode(s)) == s``; ``decode`` returns or raises MaildropError.
"""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

MAGIC = b"estafeta-maildrop 1\n"
MAX_HEAD = 64 * 1024 * 1024  # octets of envelope


class MaildropError(ValueError):
    """The bytes are no complete submission; the text says why."""


@dataclass(slots=True)
class Submission:
    """What a local user hands in. Addresses are as the user wrote them: nothing is rewritten yet."""

    sender: bytes
    recipients: list[bytes]
    content: bytes = b""  # wire form
    arrived_at: float = 0.0  # Unix time
    uid: int = 0  # of the submitter, as far as the writer may be believed
    full_name: bytes = b""
    context: str = "local"  # address rewriting context: local or remote (sendmail -G)
    body: str = ""  # 7BIT, 8BITMIME or empty
    notify: int = 0  # DSN NOTIFY bits for every recipient
    ret: str = ""  # FULL, HDRS or empty
    envid: bytes = b""  # xtext
    trace: str = ""  # verify (sendmail -bv), report (-v) or empty


_BYTES = ("sender", "full_name", "envid")
_TEXTS = ("context", "body", "ret", "trace")
_ALLOWED = {"context": ("local", "remote"), "body": ("", "7BIT", "8BITMIME"), "ret": ("", "FULL", "HDRS"),
            "trace": ("", "verify", "report")}  # fmt: skip


def _escape(value: bytes) -> bytes:
    if value.isalnum():
        return value
    return b"".join(b"%%%02X" % c if c < 33 or c in (37, 127) else bytes((c,)) for c in value)


def _unescape(value: bytes) -> bytes:
    first, *rest = value.split(b"%")
    out = [first]
    for piece in rest:
        try:
            out.append(bytes((int(piece[:2].decode("ascii"), 16),)) + piece[2:])
        except (ValueError, UnicodeDecodeError):
            raise MaildropError("bad escape") from None
        if len(piece) < 2:
            raise MaildropError("bad escape")
    return b"".join(out)


def encode(submission: Submission) -> bytes:
    """The bytes of the file."""
    s = submission
    lines = [b"arrived %.6f" % s.arrived_at, b"uid %d" % s.uid, b"sender " + _escape(s.sender)]
    for name in _BYTES[1:]:
        value = getattr(s, name)
        if value:
            lines.append(name.encode() + b" " + _escape(value))
    for name in _TEXTS:
        text = getattr(s, name)
        if text:
            lines.append(f"{name} {text}".encode())
    if s.notify:
        lines.append(b"notify %d" % s.notify)
    lines += [b"recipient " + _escape(recipient) for recipient in s.recipients]
    lines += [b"size %d" % len(s.content), b"crc %08x" % crc32(s.content)]
    return MAGIC + b"\n".join(lines) + b"\n\n" + s.content


def decode(data: bytes, *, with_content: bool = True) -> Submission:
    """The submission; raises MaildropError. Without ``with_content`` the content may be missing (a listing)."""
    if not data.startswith(MAGIC):
        raise MaildropError("no maildrop file")
    end = data.find(b"\n\n", len(MAGIC) - 1, MAX_HEAD)
    if end < 0:
        raise MaildropError("envelope is not complete")
    found = Submission(b"", [])
    seen: dict[str, bytes] = {}
    for line in data[len(MAGIC) : end].split(b"\n"):
        name, blank, value = line.partition(b" ")
        if not blank:
            raise MaildropError("bad line")
        if name == b"recipient":
            found.recipients.append(_unescape(value))
        else:
            seen[name.decode("latin-1")] = value
    if "size" not in seen or "crc" not in seen:
        raise MaildropError("envelope is not complete")
    try:
        found.arrived_at = float(seen.get("arrived", b"0"))
        found.uid = int(seen.get("uid", b"-1"))
        found.notify = int(seen.get("notify", b"0"))
        size = int(seen["size"])
        crc = int(seen["crc"], 16)
    except (ValueError, OverflowError):
        raise MaildropError("bad number") from None
    if not 0 <= found.arrived_at < 1e11 or not 0 <= found.notify < 16 or not 0 <= found.uid < 1 << 32 or size < 0:
        raise MaildropError("number out of range")
    for field in _BYTES:
        setattr(found, field, _unescape(seen.get(field, b"")))
    for field in _TEXTS:
        text = seen.get(field, b"local" if field == "context" else b"").decode("latin-1")
        if text not in _ALLOWED[field]:
            raise MaildropError(f"bad {field}")
        setattr(found, field, text)
    if with_content:
        found.content = data[end + 2 :]
        if len(found.content) != size or crc32(found.content) != crc:
            raise MaildropError("content is not complete")
    return found


def content_size(head: bytes) -> int:
    """The declared content octets of a file that starts with ``head``; raises MaildropError."""
    end = head.find(b"\n\n")
    at = head.rfind(b"\nsize ", 0, end)
    digits = head[at + 6 : head.find(b"\n", at + 6)]
    if end < 0 or at < 0 or not digits.isdigit():
        raise MaildropError("envelope is not complete")
    return int(digits)

"""Addresses: paths of SMTP commands, address fields of headers, quoting, extensions.

Source: RFC 5321 section 4.1.2 (paths), RFC 5322 sections 3.4 and 4.4 (address lists and their obsolete forms),
postconf(5) recipient_delimiter and owner_request_special.

An address has two forms. *Internal*: the localpart without quotes, ``@``, the domain: what the queue holds and rules
compare. *External*: the localpart quoted where RFC 5322 asks for it: what goes into headers, SMTP commands and table
keys. All is ``bytes``. Invariants: every function is linear in its input; ``rewrite_addresses`` changes nothing
outside of the addresses that its function changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


class AddressError(ValueError):
    """A path that is not one."""


@dataclass(frozen=True, slots=True)
class Path:
    """What MAIL FROM: or RCPT TO: said."""

    address: bytes  # internal form; empty for <>
    parameters: bytes  # what follows the path, stripped: b"SIZE=1 BODY=8BITMIME"


# --- quoting -------------------------------------------------------------------------------------------------------

_ATEXT = rb"A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-"
_DOT_ATOM = re.compile(rb"[" + _ATEXT + rb"]+(?:\.[" + _ATEXT + rb"]+)*")
_TO_ESCAPE = re.compile(rb'[\\"\r]')
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def address_literal(address: str) -> str:
    """A network address as RFC 5321 section 4.1.3 writes it, without brackets: IPv6 ones are marked."""
    return f"IPv6:{address}" if ":" in address else address


def quote_local(local: bytes) -> bytes:
    """The external form of a localpart: quoted when it is not a dot-atom (8-bit text counts as atom text)."""
    if _DOT_ATOM.fullmatch(local):
        return local
    return b'"' + _TO_ESCAPE.sub(rb"\\\g<0>", local) + b'"'


def unquote_local(local: bytes) -> bytes:
    """The internal form of a localpart: quotes removed, quoted pairs resolved."""
    if b'"' not in local and b"\\" not in local:
        return local
    out = bytearray()
    for token in _LOCAL_TOKEN.finditer(local):
        text = token.group()
        if text[:1] == b'"':
            text = text[1:-1] if _closed(text) else text[1:]
        out += _ESCAPED.sub(rb"\1", text)
    return bytes(out)


def _closed(quoted: bytes) -> bool:
    """Whether a token that begins with a quote ends with the quote that closes it."""
    if len(quoted) < 2 or not quoted.endswith(b'"'):
        return False
    body = quoted[1:-1]
    return (len(body) - len(body.rstrip(b"\\"))) % 2 == 0


_LOCAL_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|(?:[^"\\]|\\.)+|\\', re.DOTALL)


def split_address(address: bytes) -> tuple[bytes, bytes | None]:
    """Localpart and domain of an internal address; the domain is None without ``@``."""
    local, at, domain = address.rpartition(b"@")
    return (local, domain) if at else (domain, None)


def quote_address(address: bytes) -> bytes:
    """External form of an internal address."""
    local, domain = split_address(address)
    if domain is None:
        return quote_local(local) if local else b""
    return quote_local(local) + b"@" + domain if local else b"@" + domain


def unquote_address(address: bytes) -> bytes:
    """Internal form of an external address."""
    at = address.rfind(b"@")
    if at < 0 or address.endswith(b'"'):
        return unquote_local(address)
    return unquote_local(address[:at]) + address[at:]


# --- extensions ----------------------------------------------------------------------------------------------------

_NEVER_SPLIT = frozenset({b"mailer-daemon", b"postmaster", b"double-bounce"})


def split_extension(
    local: bytes, delimiters: bytes, owner_request_special: bool = True
) -> tuple[bytes, bytes | None]:
    """User and extension of an internal localpart; the extension is without its delimiter, None when there is none.

    ``delimiters`` is a set of characters. An extension may be empty, a user may not. Reserved names are not split; nor
    are owner-NAME and NAME-request where "-" is a delimiter.
    """
    if not delimiters or not local:
        return local, None
    lowered = local.lower()
    if lowered in _NEVER_SPLIT:
        return local, None
    if (
        owner_request_special
        and b"-" in delimiters
        and (lowered.startswith(b"owner-") or lowered.endswith(b"-request"))
    ):
        return local, None
    cut = min((at for at in (local.find(d) for d in delimiters) if at >= 0), default=0)
    if cut == 0:
        return local, None
    return local[:cut], local[cut + 1 :]


# --- paths of SMTP commands ----------------------------------------------------------------------------------------

_FORBIDDEN = re.compile(rb"[\x00\r\n]")
_LDH = rb"[A-Za-z0-9_\x80-\xff](?:[A-Za-z0-9_\x80-\xff-]*[A-Za-z0-9_\x80-\xff])?"
_DOMAIN = re.compile(_LDH + rb"(?:\." + _LDH + rb")*|\[[^\[\]\\\s]+\]")
_STRICT_LOCAL = re.compile(rb'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\x20-\x7e])*"')


def parse_path(data: bytes, strict: bool = False) -> Path:
    """The path and parameters that follow ``MAIL FROM:`` or ``RCPT TO:``; raises AddressError.

    Source routes are dropped. Unless ``strict`` (strict_rfc821_envelopes), white space before the path, a missing pair
    of brackets, comments and display names are tolerated, as in Postfix.
    """
    if _FORBIDDEN.search(data):
        raise AddressError("forbidden character in address")
    text = data if strict else data.lstrip(b" \t")
    end = _end_of_path(text)
    path, rest = text[:end], text[end:]
    if rest and rest[:1] not in b" \t":
        raise AddressError("garbage after the address")
    if path[:1] == b"<":
        if path[-1:] != b">" or len(path) < 2:
            raise AddressError("missing > in address")
        inner = path[1:-1]
    elif strict or not path:
        raise AddressError("address without <>")
    else:
        inner = path
    if strict:
        return Path(_strict_mailbox(inner), rest.strip(b" \t"))
    found = addresses_in(path)
    if len(found) > 1:
        raise AddressError("more than one address")
    if not found and inner.strip(b" \t"):
        raise AddressError("no address found")
    return Path(found[0] if found else b"", rest.strip(b" \t"))


def _end_of_path(text: bytes) -> int:
    """Where the path ends: at the first white space outside of quotes and brackets."""
    in_angle = False
    for token in _TOKEN.finditer(text):
        kind = text[token.start()]
        if kind == 60:  # <
            in_angle = True
        elif kind == 62:  # >
            return token.end()
        elif kind in b" \t" and not in_angle:
            # A display name may come before the bracket: "MAIL FROM: Joe <joe@x>" is read by Postfix, too.
            return token.start()
    return len(text)


def _strict_mailbox(inner: bytes) -> bytes:
    if not inner:
        return b""
    if inner[:1] == b"@":
        route, colon, mailbox = inner.partition(b":")
        hops = route.split(b",")
        if not colon or not all(hop[:1] == b"@" and _DOMAIN.fullmatch(hop[1:]) for hop in hops):
            raise AddressError("bad source route")
        inner = mailbox
    local, at, domain = inner.rpartition(b"@")
    if not at:
        if inner.lower() == b"postmaster":
            return inner
        raise AddressError("address without domain")
    if not _DOMAIN.fullmatch(domain):
        raise AddressError("bad domain")
    if _DOT_ATOM.fullmatch(local):
        return inner
    if not _STRICT_LOCAL.fullmatch(local):
        raise AddressError("bad localpart")
    return unquote_local(local) + b"@" + domain


# --- address fields of headers -------------------------------------------------------------------------------------

_TOKEN = re.compile(
    rb'[ \t\r\n]+|"(?:[^"\\]|\\.)*(?:"|\\?\Z)|\[(?:[^\]\\]|\\.)*(?:\]|\\?\Z)|[()<>@,;:.]'
    rb'|(?:[^ \t\r\n"\[()<>@,;:.\\]|\\.)+|\\',
    re.DOTALL,
)
_COMMENT_PART = re.compile(rb"[()]|(?:[^()\\]|\\.)+|\\", re.DOTALL)


@dataclass(frozen=True, slots=True)
class AddressSpan:
    """An address in a field body: ``body[start:end]`` reads as the internal ``address``."""

    start: int
    end: int
    address: bytes


_Token = tuple[int, int, int]  # first byte, start, end


def _end_of_comment(text: bytes, at: int) -> int:
    depth = 0
    for part in _COMMENT_PART.finditer(text, at):
        first = text[part.start()]
        if first == 40:
            depth += 1
        elif first == 41:
            depth -= 1
            if depth == 0:
                return part.end()
    return len(text)


def _tokens(text: bytes) -> list[_Token]:
    """The tokens that matter: no white space, no comments."""
    tokens: list[_Token] = []
    at = 0
    size = len(text)
    while at < size:
        token = _TOKEN.match(text, at)
        if token is None:
            at += 1
            continue
        first = text[at]
        if first == 40:  # (
            at = _end_of_comment(text, at)
            continue
        if first not in b" \t\r\n":
            tokens.append((first, at, token.end()))
        at = token.end()
    return tokens


def _internal(text: bytes, tokens: list[_Token]) -> bytes:
    """The internal form of an addr-spec given by its tokens."""
    at_sign = -1
    for number, token in enumerate(tokens):
        if token[0] == 64:
            at_sign = number
    out = bytearray()
    word_before = False
    for number, (first, start, end) in enumerate(tokens):
        word = first not in b"@.:,;<>"
        if word and word_before:
            out += b" "
        word_before = word
        piece = text[start:end]
        if number > at_sign or not (first == 34 or b"\\" in piece):
            if first == 34 and at_sign < 0:
                piece = unquote_local(piece)
            out += piece
        else:
            out += unquote_local(piece)
    return bytes(out)


def _without_route(tokens: list[_Token]) -> list[_Token]:
    """Drop ``@a,@b:`` from the tokens between angle brackets."""
    if tokens and tokens[0][0] == 64:
        for number, token in enumerate(tokens):
            if token[0] == 58:
                return tokens[number + 1 :]
    return tokens


def find_addresses(body: bytes) -> list[AddressSpan]:
    """The addresses of a header field body (From, To ...) in order; anything that is not an address is passed over."""
    spans: list[AddressSpan] = []
    run: list[_Token] = []
    tokens = _tokens(body)
    in_angle = False
    have_angle = False

    def flush(words: list[_Token]) -> None:
        if words:
            address = _internal(body, words)
            if address:
                spans.append(AddressSpan(words[0][1], words[-1][2], address))

    for token in tokens:
        first = token[0]
        if in_angle:
            if first == 62:  # >
                flush(_without_route(run))
                run = []
                in_angle = False
            else:
                run.append(token)
        elif first == 60:  # <: what came before is a display name
            run = []
            in_angle = have_angle = True
        elif first in b",;":
            if not have_angle:
                flush(run)
            run = []
            have_angle = False
        elif first == 58:  # the name of a group came before; or a route without brackets
            if not (run and run[0][0] == 64):
                run = []
            else:
                run = _without_route([*run, token])
        elif first != 62:
            run.append(token)
    if in_angle:
        flush(_without_route(run))
    elif not have_angle:
        flush(run)
    return spans


def addresses_in(body: bytes) -> list[bytes]:
    """The addresses of a header field body, in internal form, in order."""
    return [span.address for span in find_addresses(body)]


def rewrite_addresses(body: bytes, fn: Callable[[bytes], bytes]) -> bytes:
    """``body`` with each address replaced by what ``fn`` makes of it (internal form in and out).

    Display names, comments, groups, folding and addresses that ``fn`` does not change stay as they are, byte by byte.
    An empty result leaves the address alone.
    """
    out: list[bytes] = []
    done = 0
    for span in find_addresses(body):
        new = fn(span.address)
        if new == span.address or not new:
            continue
        out += (body[done : span.start], quote_address(new))
        done = span.end
    if not out:
        return body
    out.append(body[done:])
    return b"".join(out)

"""LDAP messages: the part of BER that LDAP uses, search filters, requests and replies. No I/O.

Source: RFC 4511 (messages), RFC 4515 (filters as text), RFC 4514 (names), RFC 4516 (URLs).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

BIND, BIND_REPLY, UNBIND, SEARCH, ENTRY, DONE, REFERENCE = 0x60, 0x61, 0x42, 0x63, 0x64, 0x65, 0x73
EXTENDED, EXTENDED_REPLY = 0x77, 0x78
START_TLS = b"1.3.6.1.4.1.1466.20037"
SCOPES = {"base": 0, "one": 1, "sub": 2}
_MAX_DEPTH = 64


class Malformed(ValueError):
    """What came over the wire, or a filter's text, cannot be read."""


class Search(NamedTuple):
    """A search; ``limit``: entries, 0 for all."""

    base: str
    scope: int
    filter: bytes
    attributes: tuple[str, ...]
    limit: int = 0
    dereference: int = 0
    seconds: int = 0


class Entry(NamedTuple):
    """An entry: attributes in the server's order."""

    name: str
    attributes: list[tuple[str, list[str]]]


class Result(NamedTuple):
    """The end of an operation."""

    code: int
    text: str


def text_bytes(text: str) -> bytes:
    """``text`` as it goes over the wire."""
    return text.encode("utf-8", "surrogateescape")


def element(tag: int, content: bytes) -> bytes:
    """One BER element."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content


def integer(value: int, tag: int = 2) -> bytes:
    """A non-negative INTEGER (or ENUMERATED: ``tag`` 10)."""
    return element(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def message(number: int, operation: bytes) -> bytes:
    """A whole LDAPMessage."""
    return element(0x30, integer(number) + operation)


def bind(version: int, name: str, password: str) -> bytes:
    """A simple bind."""
    return element(BIND, integer(version) + element(4, text_bytes(name)) + element(0x80, text_bytes(password)))


def sasl_bind(mechanism: str, credentials: bytes) -> bytes:
    """A SASL bind of one step."""
    inner = element(4, mechanism.encode()) + element(4, credentials)
    return element(BIND, integer(3) + element(4, b"") + element(0xA3, inner))


def search(request: Search) -> bytes:
    """A search request."""
    return element(
        SEARCH,
        element(4, text_bytes(request.base))
        + integer(request.scope, 10)
        + integer(request.dereference, 10)
        + integer(request.limit)
        + integer(request.seconds)
        + b"\1\1\0"
        + request.filter
        + element(0x30, b"".join(element(4, text_bytes(name)) for name in request.attributes)),
    )


# Reading.


def read_element(data: bytes, at: int = 0) -> tuple[int, bytes, int]:
    """Tag, contents, and the place behind; raises Malformed."""
    try:
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            if not 0 < size <= 4:
                raise Malformed("length")
            length = int.from_bytes(data[at : at + size], "big")
            at += size
    except IndexError:
        raise Malformed("truncated") from None
    if at + length > len(data):
        raise Malformed("truncated")
    return tag, data[at : at + length], at + length


def _elements(data: bytes) -> Iterable[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        tag, content, at = read_element(data, at)
        yield tag, content


def read_message(content: bytes) -> tuple[int, int, bytes]:
    """Message number, tag and contents of the operation in an LDAPMessage's contents; raises Malformed."""
    _, number, at = read_element(content)
    tag, body, _ = read_element(content, at)
    return int.from_bytes(number, "big"), tag, body


def read_result(body: bytes) -> Result:
    """Code and text of a reply; raises Malformed."""
    _, code, at = read_element(body)
    _, _, at = read_element(body, at)
    _, text, _ = read_element(body, at)
    return Result(int.from_bytes(code, "big"), text.decode("utf-8", "replace"))


def read_entry(body: bytes) -> Entry:
    """An entry of a search; raises Malformed."""
    _, name, at = read_element(body)
    _, listed, _ = read_element(body, at)
    attributes = []
    for _, pair in _elements(listed):
        _, kind, inside = read_element(pair)
        _, values, _ = read_element(pair, inside)
        attributes.append((_text(kind), [_text(value) for _, value in _elements(values)]))
    return Entry(_text(name), attributes)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# Quoting.

_FILTER = str.maketrans({"*": "\\2a", "(": "\\28", ")": "\\29", "\\": "\\5c", "\0": "\\00"})


def quote_filter(text: str) -> str:
    """``text`` as a value inside a filter."""
    return text.translate(_FILTER)


def quote_name(text: str) -> str:
    """``text`` as a value inside a distinguished name."""
    quoted = "".join("\\" + c if c in ',+"\\<>;' else "\\00" if c == "\0" else c for c in text)
    if quoted[:1] in ("#", " "):
        quoted = "\\" + quoted
    if quoted.endswith(" ") and len(text) > 1:
        quoted = quoted[:-1] + "\\ "
    return quoted


# Filters.


def parse_filter(text: str) -> bytes:
    """A filter, with or without its outer parentheses; raises Malformed."""
    text = text.strip()
    if not text.startswith("("):
        text = f"({text})"
    encoded, at = _filter(text, 0, 0)
    if text[at:].strip():
        raise Malformed(f"text after the filter: {text[at:]}")
    return encoded


def _filter(text: str, at: int, depth: int) -> tuple[bytes, int]:
    if depth > _MAX_DEPTH:
        raise Malformed("nested too deeply")
    if text[at : at + 1] != "(":
        raise Malformed(f"no parenthesis at: {text[at:]}")
    at += 1
    while text[at : at + 1] == " ":
        at += 1
    operator = text[at : at + 1]
    if operator and operator in "&|!":
        parts = []
        at += 1
        while True:
            while text[at : at + 1] == " ":
                at += 1
            if text[at : at + 1] != "(":
                break
            part, at = _filter(text, at, depth + 1)
            parts.append(part)
        if text[at : at + 1] != ")" or (operator == "!" and len(parts) != 1):
            raise Malformed(f"unbalanced filter: {text}")
        return element({"&": 0xA0, "|": 0xA1, "!": 0xA2}[operator], b"".join(parts)), at + 1
    end = text.find(")", at)
    inner = text.find("(", at)
    if end < 0 or 0 <= inner < end:
        raise Malformed(f"unbalanced filter: {text}")
    return _item(text[at:end]), end + 1


def _item(text: str) -> bytes:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise Malformed(f"no comparison: {text}")
    last = name[-1]
    if last == ":":
        return _extensible(name[:-1], value)
    if last in "<>~":
        tag = {">": 0xA5, "<": 0xA6, "~": 0xA8}[last]
        return element(tag, element(4, text_bytes(name[:-1].strip())) + element(4, _value(value)))
    kind = text_bytes(name.strip())
    if value == "*":
        return element(0x87, kind)
    if "*" not in value:
        return element(0xA3, element(4, kind) + element(4, _value(value)))
    parts = value.split("*")
    pieces = [element(0x80, _value(parts[0]))] if parts[0] else []
    pieces += [element(0x81, _value(part)) for part in parts[1:-1] if part]
    if parts[-1]:
        pieces.append(element(0x82, _value(parts[-1])))
    if not pieces:
        return element(0x87, kind)
    return element(0xA4, element(4, kind) + element(0x30, b"".join(pieces)))


def _extensible(left: str, value: str) -> bytes:
    kind, *options = left.split(":")
    rule = [option for option in options if option.lower() != "dn"]
    body = element(0x81, text_bytes(rule[0])) if rule else b""
    if kind:
        body += element(0x82, text_bytes(kind))
    body += element(0x83, _value(value))
    if len(rule) != len(options):
        body += element(0x84, b"\xff")
    return element(0xA9, body)


def _value(text: str) -> bytes:
    if "\\" not in text:
        return text_bytes(text)
    pieces = text_bytes(text).split(b"\\")
    value = pieces[0]
    for piece in pieces[1:]:
        try:
            value += bytes((int(piece[:2], 16),)) if len(piece) >= 2 else b"\\" + piece
            value += piece[2:] if len(piece) >= 2 else b""
        except ValueError:
            value += piece  # RFC 1960: a backslash before any character
    return value


# URLs.


class Url(NamedTuple):
    """What an LDAP URL in an entry asks for; no ``attributes``: all."""

    base: str
    attributes: tuple[str, ...]
    scope: int
    filter: str


def is_url(text: str) -> bool:
    """Whether a value is an LDAP URL rather than a name."""
    return text[:7].lower() == "ldap://" or text[:8].lower() in ("ldaps://", "ldapi://")


def parse_url(text: str) -> Url:
    """An LDAP URL without its server; raises Malformed."""
    _, _, rest = text.partition("://")
    _, _, path = rest.partition("/")
    parts = [_text(unquote_to_bytes(text_bytes(part))) for part in path.split("?")]
    parts += [""] * (4 - len(parts))
    scope = SCOPES.get(parts[2].lower() or "base")
    if scope is None:
        raise Malformed(f"scope of the URL {text}")
    names: Sequence[str] = [name.strip() for name in parts[1].split(",") if name.strip()]
    return Url(parts[0], tuple(names) if "*" not in names else (), scope, parts[3] or "(objectClass=*)")

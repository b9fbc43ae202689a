"""Conversion to 7 bits: what comes out is ASCII, short enough, and decodes to what went in, however it is cut."""

from __future__ import annotations

import quopri
from email import message_from_bytes
from email.message import Message

from hypothesis import given, settings
from hypothesis import strategies as st

from estafeta.mail.seven_bit import SevenBit, quoted_printable


def _convert(content: bytes) -> bytes:
    return SevenBit().feed(content, last=True)


def _leaves(content: bytes) -> list[bytes]:
    found: list[bytes] = []

    def walk(part: Message) -> None:
        if part.is_multipart():
            for inner in part.get_payload():
                assert isinstance(inner, Message)
                walk(inner)
        else:
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            found.append(payload)

    walk(message_from_bytes(content))
    return found


@given(st.binary(max_size=400))
def test_lines(line: bytes) -> None:
    line = line.replace(b"\r\n", b"")
    text = quoted_printable(line)
    assert text.isascii()
    assert all(len(one) <= 76 for one in text.split(b"\r\n"))
    assert quopri.decodestring(text) == line


def test_a_plain_message() -> None:
    head = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    assert _convert(head + b"caf\xc3\xa9 = \r\n.\r\n") == (
        b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\ncaf=C3=A9 =3D=20\r\n.\r\n"
    )


def test_what_stays() -> None:
    for content in (
        b"Subject: x\r\n\r\nno label \xe9\r\n",
        b"Content-Transfer-Encoding: 7bit\r\n\r\nx\r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\neA==\r\n",
        b"",
        b"\r\n",
        b"Subject: x\r\n",
    ):
        assert _convert(content) == content


MULTIPART = (
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\npreamble\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xc3\xa9 " + b"x" * 200 + b"\xc3\xa9\r\n"
    b"--b\r\n\r\nplain\r\n"
    b"--b\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\xff\r\n\r\nopen"
    b"\r\n--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"Subject: inner\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ninn\xc3\xa9r\r\n"
    b"--b--\r\nepilogue\r\n"
)


def test_parts() -> None:
    out = _convert(MULTIPART)
    assert out.isascii()
    assert out.count(b"quoted-printable") == 3 and out.count(b"7bit") == 2
    assert out.endswith(b"inn=C3=A9r\r\n--b--\r\nepilogue\r\n")
    assert _leaves(out) == _leaves(MULTIPART)


@given(st.lists(st.tuples(st.sampled_from([b"8bit", b"binary", b"7bit"]), st.binary(max_size=120)), min_size=1, max_size=5), st.data())
@settings(deadline=None)
def test_decoded_it_is_what_it_was_however_it_is_cut(parts: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    content = b"Content-Type: multipart/mixed; boundary=bound\r\n\r\n"
    bodies = []
    for encoding, body in parts:
        body = body.replace(b"--", b"").replace(b"\r", b"").replace(b"\n", b"\r\n")
        if encoding == b"7bit":
            body = bytes(octet & 0x7F for octet in body).replace(b"\r", b"").replace(b"\n", b"").replace(b"--", b"")
        bodies.append(body)
        content += b"--bound\r\nContent-Type: application/x\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body + b"\r\n"
    content += b"--bound--\r\n"
    whole = _convert(content)
    assert whole.isascii()
    decoded = []
    for section, (encoding, _) in zip(whole.split(b"--bound\r\n")[1:], parts, strict=True):
        head, _, body = section.partition(b"\r\n\r\n")
        body = body.removesuffix(b"--bound--\r\n").removesuffix(b"\r\n")
        assert (b"quoted-printable" in head) == (encoding != b"7bit")
        decoded.append(quopri.decodestring(body) if encoding != b"7bit" else body)
    assert decoded == bodies
    lines = [line + b"\r\n" for line in content.split(b"\r\n")[:-1]]
    cut = data.draw(st.integers(3, len(lines)))
    converter = SevenBit()
    first = converter.feed(b"".join(lines[:cut]), last=cut == len(lines))
    rest = converter.feed(b"".join(lines[cut:]), last=True) if cut < len(lines) else b""
    assert first + rest == whole

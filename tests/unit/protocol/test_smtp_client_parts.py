"""Replies, commands, phases: the parts of the client. Odd replies as observed with Postfix's smtp(8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.protocol.smtp_client_commands import (
    Envelope,
    EnvelopeRecipient,
    Features,
    break_long_lines,
    dot_stuff,
    mail_command,
    parse_features,
    quote_address,
    rcpt_command,
    xtext,
)
from estafeta.protocol.smtp_client_phase import (
    Phase,
    lost_text,
    refused_text,
    said_text,
    timed_out_text,
)
from estafeta.protocol.smtp_reply import MAX_LINES, REPLY_LIMIT, ReplyError, ReplyReader, SmtpReply

EVERYTHING = Features(dict.fromkeys(["size", "8bitmime", "smtputf8", "dsn", "auth"], ""))
NOTHING = Features({})


def read(data: bytes, step: int = 0) -> list[SmtpReply]:
    reader = ReplyReader()
    replies = []
    for start in range(0, len(data), step or len(data) or 1):
        reader.feed(data[start : start + step] if step else data)
        while (reply := reader.next_reply()) is not None:
            replies.append(reply)
    return replies


@pytest.mark.parametrize(
    ("raw", "code", "status", "text"),
    [
        (b"550 5.1.1 no\r\n", 550, "5.1.1", "550 5.1.1 no"),
        (b"550 5.1.1 bare lf\n", 550, "5.1.1", "550 5.1.1 bare lf"),
        (b"550 plain text\r\n", 550, "5.0.0", "550 plain text"),
        (b"550 4.1.1 mismatch\r\n", 550, "5.0.0", "550 4.1.1 mismatch"),
        (b"550\r\n", 550, "5.0.0", "550"),
        (b"550 \r\n", 550, "5.0.0", "550 "),
        (b"150 x\r\n", 150, "5.5.0", "150 x"),
        (b"950 x\r\n", 950, "5.5.0", "950 x"),
        (b"354 x\r\n", 354, "5.5.0", "354 x"),
        (b"hello there\r\n550 x\r\n", 550, "5.0.0", "hello there 550 x"),
        (b"55 x\r\n550 y\r\n", 550, "5.0.0", "55 x 550 y"),
        (b"250-5.1.1 first line\r\n550 5.1.1 third\r\n", 550, "5.1.1", "250-5.1.1 first line 550 5.1.1 third"),
        (b"550 5.1.1 a\x01\x80\tb\r\n", 550, "5.1.1", "550 5.1.1 a???b"),
        (b"250 2.1.0 \xc3\xb1\r\n", 250, "2.1.0", "250 2.1.0 ñ"),
        (
            b"550-5.1.1 first line\r\n550-5.1.1 second  line \r\n550 5.1.1 third\r\n",
            550,
            "5.1.1",
            "550-5.1.1 first line 550-5.1.1 second  line  550 5.1.1 third",
        ),
    ],
)
@pytest.mark.parametrize("step", [0, 1, 3])
def test_replies(raw: bytes, code: int, status: str, text: str, step: int) -> None:
    (reply,) = read(raw, step)
    assert (reply.code, reply.status, reply.text) == (code, status, text)


def test_garbage_is_reported() -> None:
    assert read(b"hello there\r\n550 x\r\n")[0].garbage == b"hello there"
    assert read(b"550-x\r\n550 x\r\n")[0].garbage is None


@pytest.mark.parametrize("step", [0, 1, 1000])
def test_long_lines_and_long_replies_are_cut(step: int) -> None:
    long, after = read(b"550 " + b"x" * 5000 + b"\r\n250 ok\r\n", step)
    assert long.lines == (b"550 " + b"x" * 2044,)
    assert long.truncated
    assert after.lines == (b"250 ok",)
    (many,) = read(b"550-5.1.1 abc\r\n" * 400 + b"550 5.1.1 end\r\n", step)
    assert many.truncated
    assert many.lines[-1] == b"550 5.1.1 end"
    assert sum(map(len, many.lines)) < REPLY_LIMIT + 20


def test_endless_reply_raises_and_endless_line_stays_small() -> None:
    reader = ReplyReader()
    reader.feed(b"250-x\r\n" * (MAX_LINES + 1))
    with pytest.raises(ReplyError):
        reader.next_reply()
    reader = ReplyReader()
    for _ in range(1000):
        reader.feed(b"2" * 1000)
        assert reader.next_reply() is None
    assert len(reader._buffer) < 4096


def test_reply_filter_sees_each_line() -> None:
    reader = ReplyReader(lambda line: b"250-filler" if line == b"junk" else line)
    reader.feed(b"junk\r\n250 ok\r\n")
    reply = reader.next_reply()
    assert reply is not None
    assert reply.lines == (b"250-filler", b"250 ok")
    assert reply.garbage is None


@given(st.lists(st.sampled_from([b"250", b" ", b"-", b"\r", b"\n", b"\r\n", b"x"]) | st.binary(max_size=9)), st.data())
def test_any_bytes_give_the_same_replies_at_any_cut(pieces: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(pieces) + b"\r\n250 end\r\n"
    whole = read(raw)
    assert whole[-1].code
    assert read(raw, data.draw(st.integers(1, max(1, len(raw))))) == whole
    for reply in whole:
        assert reply.text.isprintable() or reply.text
        assert reply.status


def test_features() -> None:
    features = parse_features(
        [
            b"250-mx.test Hello",
            b"250-SIZE 1000",
            b"250-AUTH PLAIN LOGIN",
            b"250-AUTH=LOGIN CRAM-MD5",
            b"250-",
            b"250 Dsn",
        ]
    )
    assert features.server_name == "mx.test"
    assert features.size_limit == 1000
    assert features.auth_mechanisms == ("PLAIN", "LOGIN", "CRAM-MD5")
    assert "dsn" in features
    assert "dsn" not in parse_features([b"250-x", b"250 DSN"], frozenset({"dsn"}))
    assert parse_features([b"250-x", b"250 SIZE x"]).size_limit == 0


@pytest.mark.parametrize(
    ("address", "quoted"),
    [
        (b"user@example.com", b"user@example.com"),
        (b"a b@example.com", b'"a b"@example.com'),
        (b'a"b\\c@example.com', b'"a\\"b\\\\c"@example.com'),
        (b"x.@d", b'"x."@d'),
        (b".y@d", b'".y"@d'),
        (b"a..b@d", b'"a..b"@d'),
        (b"a@b@d", b'"a@b"@d'),
        (b"user+ext=x@d", b"user+ext=x@d"),
        (b"\xc3\xb1@d", b"\xc3\xb1@d"),
        (b"postmaster", b"postmaster"),
        (b"", b""),
        (b"a\r\nRCPT@d\r\n", b'"aRCPT"@d'),
    ],
)
def test_quoting(address: bytes, quoted: bytes) -> None:
    assert quote_address(address) == quoted


@given(st.binary(max_size=60), st.binary(max_size=30), st.booleans())
def test_no_command_has_a_line_break_inside(address: bytes, orcpt: bytes, quote: bool) -> None:
    recipient = EnvelopeRecipient(address, b"NEVER", b"rfc822;" + orcpt)
    for command in (
        rcpt_command(recipient, EVERYTHING, quote=quote),
        rcpt_command(EnvelopeRecipient(address, orcpt=b"utf-8;" + orcpt), EVERYTHING, quote=quote),
        mail_command(Envelope(address, [recipient], 1, envid=orcpt), EVERYTHING, quote=quote),
    ):
        assert command.endswith(b"\r\n")
        assert b"\r" not in command[:-2]
        assert b"\n" not in command[:-2]


def test_commands_in_the_order_of_postfix() -> None:
    """As written by Postfix 3.7 to a server that offers everything."""
    recipient = EnvelopeRecipient(b"x.@d.route", b"SUCCESS,DELAY", b"rfc822;x.@d.route")
    envelope = Envelope(b"s@me.test", [recipient], 240, eight_bit=True, ret=b"HDRS", envid=b"env+id=1")
    assert (
        mail_command(envelope, EVERYTHING)
        == b"MAIL FROM:<s@me.test> SIZE=240 BODY=8BITMIME ENVID=env+2Bid+3D1 RET=HDRS\r\n"
    )
    assert (
        rcpt_command(recipient, EVERYTHING)
        == b'RCPT TO:<"x."@d.route> ORCPT=rfc822;x.@d.route NOTIFY=SUCCESS,DELAY\r\n'
    )
    address = "ñu@d.route".encode()
    wide = EnvelopeRecipient(address, b"NEVER", b"utf-8;" + address)
    assert rcpt_command(wide, EVERYTHING).endswith(b" ORCPT=utf-8;\\x{F1}u@d.route NOTIFY=NEVER\r\n")
    envelope = Envelope(b"", [wide], 5, smtputf8=True, auth_empty=True)
    assert mail_command(envelope, EVERYTHING) == b"MAIL FROM:<> SIZE=5 SMTPUTF8 AUTH=<>\r\n"
    assert mail_command(envelope, NOTHING) == b"MAIL FROM:<>\r\n"
    assert rcpt_command(recipient, NOTHING, quote=False) == b"RCPT TO:<x.@d.route>\r\n"


def test_xtext() -> None:
    assert xtext(b"a+b=c d\xff~") == b"a+2Bb+3Dc+20d+FF~"


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"", b""),
        (b"a\r\n", b"a\r\n"),
        (b"a", b"a\r\n"),
        (b".", b"..\r\n"),
        (b".\r\n", b"..\r\n"),
        (b"a\r\n.\r\n..b\r\n", b"a\r\n..\r\n...b\r\n"),
        (b"a.\r\n", b"a.\r\n"),
    ],
)
def test_dot_stuffing(content: bytes, sent: bytes) -> None:
    assert dot_stuff(content) == sent


@given(st.lists(st.sampled_from([b".", b"\r\n", b"a"]), max_size=20).map(b"".join))
def test_dot_stuffed_content_comes_back_and_never_ends_early(content: bytes) -> None:
    sent = dot_stuff(content)
    lines = (sent + b".\r\n").split(b"\r\n")
    assert lines.index(b".") == len(lines) - 2
    back = b"".join(line.removeprefix(b".") + b"\r\n" for line in lines[:-2])
    assert back == content + (b"" if content.endswith(b"\r\n") or not content else b"\r\n")


def test_no_copy_for_plain_content() -> None:
    content = b"a\r\nb\r\n"
    assert dot_stuff(content) is content
    assert dot_stuff(b"x\r\n.y\r\n", dot_free=True) == b"x\r\n.y\r\n"
    assert break_long_lines(content, 998) is content


def test_long_content_lines_are_broken() -> None:
    content = b"a" * 10 + b"\r\n" + b"b" * 25 + b"\r\n"
    broken = break_long_lines(content, 10)
    assert broken == b"a" * 10 + b"\r\n" + b"b" * 10 + b"\r\n " + b"b" * 9 + b"\r\n " + b"b" * 6 + b"\r\n"
    assert break_long_lines(content, 0) is content


def test_the_words_of_the_log() -> None:
    peer = "mx[192.0.2.1]"
    reply = SmtpReply(550, (b"550 5.7.1 no way",))
    assert said_text(peer, reply, Phase.RCPT) == f"host {peer} said: 550 5.7.1 no way (in reply to RCPT TO command)"
    assert refused_text(peer, reply) == f"host {peer} refused to talk to me: 550 5.7.1 no way"
    assert lost_text(peer, Phase.EHLO) == f"lost connection with {peer} while performing the EHLO handshake"
    assert (
        timed_out_text(peer, Phase.DOT)
        == f"conversation with {peer} timed out while sending end of data -- message may be sent more than once"
    )
    assert Phase.DATA.timeout_parameter() == "smtp_data_init_timeout"
    assert Phase.GREETING.timeout_parameter(lmtp=True) == "lmtp_lhlo_timeout"
    assert Phase.MAIL.timeout_parameter(lmtp=True) == "lmtp_mail_timeout"

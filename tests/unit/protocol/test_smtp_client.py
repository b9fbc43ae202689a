"""The client machine: whole conversations, fed whole, byte by byte and at random cuts."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.protocol.smtp_client import (
    ClientOptions,
    Closed,
    CommandReply,
    ConnectionLost,
    DataReady,
    DataRefused,
    Envelope,
    EnvelopeRecipient,
    Event,
    Greeting,
    HelloDone,
    HelloRefused,
    LocalError,
    MessageDone,
    Phase,
    ProtocolError,
    QuitDone,
    RecipientResult,
    ResetDone,
    SenderResult,
    SmtpClient,
    State,
    TransactionOver,
    Unsolicited,
)

PIPE = b"250-mx.test\r\n250-PIPELINING\r\n250-SIZE 1000\r\n250-DSN\r\n250 8BITMIME\r\n"
PLAIN = b"250 mx.test\r\n"
HELLO = b"EHLO me.test\r\n"
OPTIONS = ClientOptions(b"me.test")


def envelope(*recipients: bytes, sender: bytes = b"s@a.test") -> Envelope:
    return Envelope(sender, [EnvelopeRecipient(address) for address in recipients])


class Script:
    """Drives a client as an agent does: content when it is wanted, and what ``steps`` say when it is idle."""

    def __init__(self, client: SmtpClient, envelopes: list[Envelope], content: bytes = b"x\r\n") -> None:
        self.client = client
        self.envelopes = list(envelopes)
        self.content = content
        self.sent: list[bytes] = []
        self.events: list[Event] = []

    def flush(self) -> None:
        data = self.client.bytes_to_send()
        if data:
            self.sent.append(data)

    def drain(self) -> None:
        while (event := self.client.next_event()) is not None:
            self.events.append(event)
            match event:
                case Greeting():
                    self.client.hello()
                case HelloDone() | TransactionOver() if not self.client.must_close:
                    if self.envelopes:
                        self.client.begin(self.envelopes.pop(0))
                    elif self.client.state is State.READY:
                        self.client.quit()
                case DataReady():
                    self.client.send_content(self.content)
                case _:
                    pass
            self.flush()
        self.flush()


def cuts(data: bytes, how: str) -> Iterator[bytes]:
    if how == "whole":
        yield data
    elif how == "bytes":
        for position in range(len(data)):
            yield data[position : position + 1]
    else:
        rng = random.Random(how)
        while data:
            size = rng.randint(1, 40)
            yield data[:size]
            data = data[size:]


def converse(
    replies: bytes,
    how: str = "whole",
    envelopes: list[Envelope] | None = None,
    options: ClientOptions = OPTIONS,
    *,
    end: bool = False,
) -> Script:
    script = Script(SmtpClient(options), [envelope(b"r@b.test")] if envelopes is None else envelopes)
    for piece in cuts(replies, how):
        script.client.receive_data(piece)
        script.drain()
    if end:
        script.client.receive_data(b"")
        script.drain()
    return script


def brief(events: list[Event]) -> list[str]:
    """One word per event, with codes and indexes: what the tests compare."""
    words = []
    for event in events:
        match event:
            case RecipientResult(index, reply):
                words.append(f"rcpt{index}:{reply.code}")
            case DataReady(accepted):
                words.append(f"ready{list(accepted)}")
            case DataRefused(reply, accepted):
                words.append(f"refused{list(accepted)}:{reply.code}")
            case MessageDone(reply, indexes):
                words.append(f"done{list(indexes)}:{reply.code}")
            case TransactionOver(delivered):
                words.append(f"over:{delivered}")
            case ConnectionLost(phase):
                words.append(f"lost:{phase.name}")
            case HelloRefused(reply, phase):
                words.append(f"norefuge:{phase.name}:{reply.code}")
            case SenderResult(reply):
                words.append(f"mail:{reply.code}")
            case CommandReply(phase, reply):
                words.append(f"{phase.name}:{reply.code}")
            case _:
                words.append(type(event).__name__)
    return words


HOW = ["whole", "bytes", "one", "two", "three"]
START = ["Greeting", "HelloDone"]

CASES: dict[str, tuple[bytes, list[Envelope], list[str], bytes]] = {
    "pipelined": (
        b"220 mx ESMTP\r\n" + PIPE + b"250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go\r\n250 2.0.0 queued\r\n221 bye\r\n",
        [envelope(b"r@b.test")],
        ["mail:250", "rcpt0:250", "ready[0]", "done[0]:250", "over:True", "QuitDone"],
        HELLO + b"MAIL FROM:<s@a.test>\r\nRCPT TO:<r@b.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
    ),
    "one by one": (
        b"220 mx ESMTP\r\n" + PLAIN + b"250 ok\r\n250 ok\r\n550 no\r\n354 go\r\n250 queued\r\n221 bye\r\n",
        [envelope(b"r@b.test", b"q@b.test")],
        ["mail:250", "rcpt0:250", "rcpt1:550", "ready[0]", "done[0]:250", "over:True", "QuitDone"],
        HELLO + b"MAIL FROM:<s@a.test>\r\nRCPT TO:<r@b.test>\r\nRCPT TO:<q@b.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
    ),
    "two messages, the second behind a bounce": (
        b"220 mx ESMTP\r\n"
        + PLAIN
        + b"250 ok\r\n550 no\r\n250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n221 bye\r\n",
        [envelope(b"r@b.test"), envelope(b"q@b.test")],
        [
            "mail:250",
            "rcpt0:550",
            "over:False",
            "mail:250",
            "rcpt0:250",
            "ready[0]",
            "done[0]:250",
            "over:True",
            "QuitDone",
        ],
        HELLO
        + b"MAIL FROM:<s@a.test>\r\nRCPT TO:<r@b.test>\r\nRSET\r\nMAIL FROM:<s@a.test>\r\nRCPT TO:<q@b.test>\r\n"
        + b"DATA\r\nx\r\n.\r\nQUIT\r\n",
    ),
    "pipelined sender refused": (
        b"220 mx ESMTP\r\n" + PIPE + b"550 no\r\n503 no\r\n503 no\r\n221 bye\r\n",
        [envelope(b"r@b.test")],
        ["mail:550", "over:False", "QuitDone"],
        HELLO + b"MAIL FROM:<s@a.test>\r\nRCPT TO:<r@b.test>\r\nDATA\r\nQUIT\r\n",
    ),
    "sender refused one by one": (
        b"220 mx ESMTP\r\n" + PLAIN + b"450 later\r\n221 bye\r\n",
        [envelope(b"r@b.test")],
        ["mail:450", "over:False", "QuitDone"],
        HELLO + b"MAIL FROM:<s@a.test>\r\nQUIT\r\n",
    ),
    "lone dot when nobody is accepted": (
        b"220 mx ESMTP\r\n" + PIPE + b"250 ok\r\n550 no\r\n354 go\r\n554 nobody\r\n221 bye\r\n",
        [envelope(b"r@b.test")],
        ["mail:250", "rcpt0:550", "over:False", "QuitDone"],
        HELLO + b"MAIL FROM:<s@a.test>\r\nRCPT TO:<r@b.test>\r\nDATA\r\n.\r\nQUIT\r\n",
    ),
    "data refused": (
        b"220 mx ESMTP\r\n" + PIPE + b"250 ok\r\n250 ok\r\n451 later\r\n250 reset\r\n250 ok\r\n250 ok\r\n"
        b"354 go\r\n250 ok\r\n221 bye\r\n",
        [envelope(b"r@b.test"), envelope(b"q@b.test")],
        [
            "mail:250",
            "rcpt0:250",
            "refused[0]:451",
            "over:False",
            "mail:250",
            "rcpt0:250",
            "ready[0]",
            "done[0]:250",
            "over:True",
            "QuitDone",
        ],
        HELLO + b"MAIL FROM:<s@a.test>\r\nRCPT TO:<r@b.test>\r\nDATA\r\n"
        b"RSET\r\nMAIL FROM:<s@a.test>\r\nRCPT TO:<q@b.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n",
    ),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", CASES)
def test_conversations(name: str, how: str) -> None:
    replies, envelopes, expected, sent = CASES[name]
    script = converse(replies, how, envelopes)
    assert brief(script.events) == START + expected
    assert b"".join(script.sent) == sent
    assert script.client.state is State.QUITTING


def test_fast_path_is_one_write_for_the_envelope_and_one_for_the_content() -> None:
    replies, envelopes, _, _ = CASES["pipelined"]
    assert len(converse(replies, "bytes", envelopes).sent) == 4
    client = SmtpClient(OPTIONS)
    for reply in (b"220 mx\r\n", PIPE):
        client.receive_data(reply)
        client.next_event()
        if client.state is State.GREETED:
            client.hello()
            client.bytes_to_send()
    for number in range(3):
        assert client.reusable
        client.begin(envelope(b"r@b.test"))
        assert client.bytes_to_send() == b"MAIL FROM:<s@a.test>\r\nRCPT TO:<r@b.test>\r\nDATA\r\n"
        client.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n")
        assert [type(client.next_event()) for _ in range(4)] == [SenderResult, RecipientResult, DataReady, type(None)]
        client.send_content(b".a\r\n.\r\n")
        assert client.bytes_to_send() == b"..a\r\n..\r\n.\r\n"
        assert not client.reusable
        client.receive_data(b"250 ok %d\r\n" % number)
        assert brief([event for _ in range(2) if (event := client.next_event())]) == ["done[0]:250", "over:True"]


@pytest.mark.parametrize("how", HOW)
def test_lmtp_has_a_reply_for_each_recipient(how: str) -> None:
    replies = b"220 ok\r\n" + PIPE + b"250 ok\r\n250 a\r\n550 b\r\n250 c\r\n354 go\r\n250 a\r\n452 c\r\n221 bye\r\n"
    options = ClientOptions(b"me.test", lmtp=True)
    script = converse(replies, how, [envelope(b"a", b"b", b"c")], options)
    assert brief(script.events)[2:] == [
        "mail:250", "rcpt0:250", "rcpt1:550", "rcpt2:250", "ready[0, 2]", "done[0]:250", "done[2]:452", "over:True",
        "QuitDone",
    ]  # fmt: skip
    assert script.sent[0] == b"LHLO me.test\r\n"


@pytest.mark.parametrize("lmtp", [True, False])
def test_session_ends_where_a_lone_dot_would_be_dangerous(lmtp: bool) -> None:
    """An SMTP server that takes a recipient without a sender, or LMTP without recipients: no dot, no further use."""
    answer = b"250 ok\r\n550 no\r\n354 go\r\n" if lmtp else b"550 no\r\n250 ok\r\n354 go\r\n"
    script = converse(b"220 x\r\n" + PIPE + answer, options=ClientOptions(b"me.test", lmtp=lmtp))
    assert brief(script.events)[-1] == "over:False"
    assert script.sent[-1].endswith(b"DATA\r\n")
    assert script.client.state is State.CLOSED
    script.client.quit()
    assert script.client.bytes_to_send() == b""


def test_hello_falls_back_and_gives_up() -> None:
    done = converse(b"220 x\r\n502 what\r\n250 hi\r\n")
    assert brief(done.events) == START
    assert b"".join(done.sent).startswith(HELLO + b"HELO me.test\r\nMAIL FROM:<s@a.test>\r\n")
    assert isinstance(done.events[1], HelloDone)
    assert not done.events[1].extended
    assert brief(converse(b"220 x\r\n502 what\r\n550 no\r\n").events)[1:] == ["norefuge:HELO:550"]
    busy = converse(b"220 x\r\n421 busy\r\n")
    assert brief(busy.events)[1:] == ["norefuge:EHLO:421"]
    assert busy.client.must_close
    options = ClientOptions(b"me.test", lmtp=True)
    assert brief(converse(b"220 x\r\n500 no\r\n", options=options).events)[1:] == ["norefuge:LHLO:500"]
    assert converse(b"220 x\r\n", options=ClientOptions(b"me", never_send_ehlo=True)).sent == [b"HELO me\r\n"]


@pytest.mark.parametrize(
    ("replies", "phase"),
    [
        (b"", Phase.GREETING),
        (b"220-x\r\n220 ", Phase.GREETING),
        (b"220 x\r\n", Phase.EHLO),
        (b"220 x\r\n500 x\r\n", Phase.HELO),
        (b"220 x\r\n" + PIPE, Phase.MAIL),
        (b"220 x\r\n" + PIPE + b"250 ok\r\n", Phase.RCPT),
        (b"220 x\r\n" + PLAIN + b"250 ok\r\n250 ok\r\n", Phase.DATA),
        (b"220 x\r\n" + PIPE + b"250 ok\r\n250 ok\r\n354 go\r\n", Phase.DOT),
        (b"220 x\r\n" + PIPE + b"250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n", Phase.QUIT),
    ],
)
def test_the_end_of_the_stream_names_its_phase(replies: bytes, phase: Phase) -> None:
    script = converse(replies, end=True)
    assert script.events[-1] == ConnectionLost(phase)
    assert script.client.next_event() is None
    assert not script.client.reusable


def test_idle_session_that_ends_or_speaks() -> None:
    client = SmtpClient(OPTIONS)
    script = Script(client, [])
    client.receive_data(b"220 x\r\n")
    script.drain()
    client.receive_data(PIPE)
    assert isinstance(client.next_event(), HelloDone)
    client.reset()
    assert client.phase is Phase.RSET
    client.receive_data(b"250 ok\r\n")
    assert isinstance(client.next_event(), ResetDone)
    client.receive_data(b"421 too long idle\r\n")
    assert isinstance(client.next_event(), Unsolicited)
    assert not client.reusable
    client.receive_data(b"")
    assert isinstance(client.next_event(), Closed)


def test_starttls_stops_and_forgets_what_came_in_clear() -> None:
    client = SmtpClient(OPTIONS)
    client.receive_data(b"220 x\r\n")
    client.next_event()
    client.hello()
    client.receive_data(PIPE)
    client.next_event()
    client.start_tls()
    client.receive_data(b"220 go ahead\r\n250-injected\r\n250 PIPELINING\r\n")
    assert brief([event for _ in range(2) if (event := client.next_event())]) == ["STARTTLS:220"]
    assert client.state is State.STOPPED
    client.receive_data(b"250 more\r\n")
    assert client.next_event() is None
    with pytest.raises(LocalError):
        client.begin(envelope(b"r@b.test"))
    client.tls_started()
    client.hello()
    assert client.next_event() is None
    assert "pipelining" not in client.features
    client.receive_data(PLAIN)
    assert isinstance(client.next_event(), HelloDone)


def test_starttls_refused_leaves_the_session_usable() -> None:
    client = SmtpClient(OPTIONS)
    client.receive_data(b"220 x\r\n")
    client.next_event()
    client.hello()
    client.receive_data(PIPE)
    client.next_event()
    client.start_tls()
    client.receive_data(b"454 not now\r\n")
    assert brief([event for _ in range(2) if (event := client.next_event())]) == ["STARTTLS:454"]
    assert client.reusable


def test_auth_rounds() -> None:
    client = SmtpClient(OPTIONS)
    client.receive_data(b"220 x\r\n")
    client.next_event()
    client.hello()
    client.receive_data(PIPE)
    client.next_event()
    client.bytes_to_send()
    client.ask(Phase.AUTH, b"AUTH LOGIN")
    client.receive_data(b"334 VXNlcm5hbWU6\r\n")
    assert brief([event for _ in range(2) if (event := client.next_event())]) == ["AUTH:334"]
    client.ask(Phase.AUTH, b"dXNlcg==")
    client.receive_data(b"235 ok\r\n")
    assert brief([event for _ in range(2) if (event := client.next_event())]) == ["AUTH:235"]
    assert client.bytes_to_send() == b"AUTH LOGIN\r\ndXNlcg==\r\n"
    assert client.reusable
    with pytest.raises(LocalError):
        client.ask(Phase.AUTH, b"x\r\nRSET")


def test_early_reply_waits_for_the_end_of_the_content() -> None:
    client = SmtpClient(OPTIONS)
    script = Script(client, [])
    client.receive_data(b"220 x\r\n")
    script.drain()
    client.receive_data(PIPE)
    client.next_event()
    client.begin(envelope(b"r@b.test"))
    client.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n552 too big\r\n")
    assert brief([event for _ in range(4) if (event := client.next_event())]) == ["mail:250", "rcpt0:250", "ready[0]"]
    assert client.phase is Phase.CONTENT
    assert client.next_event() is None
    client.end_content(quit_after=True)
    assert brief([event for _ in range(3) if (event := client.next_event())]) == ["done[0]:552", "over:True"]
    assert client.bytes_to_send().endswith(b".\r\nQUIT\r\n")
    client.receive_data(b"221 bye\r\n")
    assert isinstance(client.next_event(), QuitDone)


def test_last_words_of_a_server_that_closes_during_the_content() -> None:
    client = SmtpClient(OPTIONS)
    script = Script(client, [])
    client.receive_data(b"220 x\r\n")
    script.drain()
    client.receive_data(PIPE)
    client.next_event()
    client.begin(envelope(b"r@b.test"))
    client.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n421 enough\r\n")
    client.receive_data(b"")
    events = [event for _ in range(5) if (event := client.next_event())]
    assert brief(events) == ["mail:250", "rcpt0:250", "ready[0]", "Unsolicited", "lost:CONTENT"]


def test_421_anywhere_ends_the_reuse() -> None:
    script = converse(b"220 x\r\n" + PIPE + b"250 ok\r\n421 bye\r\n503 x\r\n", envelopes=[envelope(b"r")] * 2)
    assert brief(script.events)[2:] == ["mail:250", "rcpt0:421", "over:False"]
    assert script.client.must_close
    assert not script.client.reusable


def test_a_reply_without_end_is_a_protocol_error() -> None:
    script = converse(b"220 x\r\n" + b"250-x\r\n" * 2000)
    assert isinstance(script.events[-1], ProtocolError)
    assert script.client.state is State.CLOSED


def test_wrong_order_is_a_local_error() -> None:
    client = SmtpClient(OPTIONS)
    for call in (
        client.hello,
        client.reset,
        client.end_content,
        client.start_tls,
        client.tls_started,
        lambda: client.begin(envelope(b"r")),
        lambda: client.begin(Envelope(b"", [])),
        lambda: client.send_content(b""),
    ):
        with pytest.raises(LocalError):
            call()


@given(st.lists(st.sampled_from([b"220 x\r\n", PIPE, PLAIN, b"250 ok\r\n", b"354 go\r\n", b"550 no\r\n", b"421 x\r\n"])
                | st.binary(max_size=30), max_size=14), st.booleans(), st.randoms(use_true_random=False))  # fmt: skip
def test_no_server_can_make_it_fail(replies: list[bytes], lmtp: bool, rng: random.Random) -> None:
    data = b"220 x\r\n" + b"".join(replies)
    options = ClientOptions(b"me.test", lmtp=lmtp)
    envelopes = [envelope(b"a", b"b"), envelope(b"c")]
    whole = converse(data, "whole", envelopes, options, end=True)
    split = converse(data, str(rng.random()), envelopes, options, end=True)
    assert brief(whole.events) == brief(split.events)
    assert b"".join(whole.sent) == b"".join(split.sent)

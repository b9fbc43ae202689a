"""Results and log lines of deliveries, one server."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable

import pytest

from estafeta.ipc.messages import ContentFlag, DeliverReply
from support.smtp_agent import Agent, outcomes
from support.smtp_sink import SmtpSink

Drive = Callable[..., None]


def test_one_message_arrives(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            reply = await agent.deliver(f"[127.0.0.1]:{sink.port}", b"to@d.example")
            assert outcomes(reply) == [(0, "sent", "2.0.0", "250 2.0.0 Ok: queued")]
            assert sink.contents == [b"From: a@b.example\r\nSubject: hi\r\n\r\nhello\r\n"]
            assert sink.commands == [
                "EHLO me.example",
                "MAIL FROM:<from@b.example> SIZE=41",
                "RCPT TO:<to@d.example> ORCPT=rfc822;to@d.example",
                "DATA",
                "QUIT",
            ]
            (line,) = agent.lines
            assert re.fullmatch(
                rf"Q1: to=<to@d\.example>, relay=127\.0\.0\.1\[127\.0\.0\.1\]:{sink.port}, delay=\S+, delays=\S+, "
                r"dsn=2\.0\.0, status=sent \(250 2\.0\.0 Ok: queued\)",
                line,
            )

    drive(test)


def _said(sink: SmtpSink, text: str, command: str) -> str:
    return f"host 127.0.0.1[127.0.0.1] said: {text} (in reply to {command} command)"


def test_recipients_have_their_own_results(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        replies = {"RCPT:no@d.example": "550 5.1.1 unknown", "RCPT:later@d.example": "450 4.2.1 greylisted"}
        async with SmtpSink(replies) as sink:
            reply = await agent.deliver(f"[127.0.0.1]:{sink.port}", b"ok@d.example", b"no@d.example", b"later@d.example")
            assert outcomes(reply) == [
                (0, "sent", "2.0.0", "250 2.0.0 Ok: queued"),
                (1, "bounced", "5.1.1", _said(sink, "550 5.1.1 unknown", "RCPT TO")),
                (2, "deferred", "4.2.1", _said(sink, "450 4.2.1 greylisted", "RCPT TO")),
            ]
            bounced = next(result for result in reply.results if result.index == 1)
            assert (bounced.mta, bounced.diagnostic) == ("127.0.0.1", "550 5.1.1 unknown")
            assert not reply.site_dead

    drive(test)


@pytest.mark.parametrize(
    ("replies", "status", "dsn", "text"),
    [
        ({"MAIL": "550 5.7.1 go away"}, "bounced", "5.7.1", "said: 550 5.7.1 go away (in reply to MAIL FROM command)"),
        ({"MAIL": "451 not now"}, "deferred", "4.0.0", "said: 451 not now (in reply to MAIL FROM command)"),
        ({"DATA": "554 5.6.0 no"}, "bounced", "5.6.0", "said: 554 5.6.0 no (in reply to DATA command)"),
        ({"DOT": "554 5.7.1 spam"}, "bounced", "5.7.1", "said: 554 5.7.1 spam (in reply to end of DATA command)"),
        ({"DOT": "452 4.3.1 full"}, "deferred", "4.3.1", "said: 452 4.3.1 full (in reply to end of DATA command)"),
        ({"GREETING": "421 4.7.0 busy"}, "deferred", "4.7.0", "refused to talk to me: 421 4.7.0 busy"),
        ({"GREETING": "554 5.7.1 no"}, "deferred", "4.7.1", "refused to talk to me: 554 5.7.1 no"),
        ({"EHLO": "421 4.7.0 busy"}, "deferred", "4.7.0", "refused to talk to me: 421 4.7.0 busy"),
        ({"EHLO": "502 what", "HELO": "550 5.7.1 no"}, "bounced", "5.7.1", "refused to talk to me: 550 5.7.1 no"),
        ({"MAIL": "250-a\r\n250 b", "RCPT": "650 eh"}, "bounced", "5.5.0", "said: 650 eh (in reply to RCPT TO command)"),
    ],
)
def test_refusals(drive: Drive, replies: dict[str, str], status: str, dsn: str, text: str) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink(dict(replies)) as sink:
            reply = await agent.deliver(f"[127.0.0.1]:{sink.port}")
            assert outcomes(reply) == [(0, status, dsn, f"host 127.0.0.1[127.0.0.1] {text}")]
            assert bool(reply.site_dead) == ("refused" in text and status == "deferred")

    drive(test)


@pytest.mark.parametrize(
    ("replies", "text"),
    [
        ({"GREETING": "close"}, "lost connection with PEER while receiving the initial server greeting"),
        ({"EHLO": "close"}, "lost connection with PEER while performing the EHLO handshake"),
        ({"MAIL": "close"}, "lost connection with PEER while sending MAIL FROM"),
        ({"RCPT": "abort"}, "lost connection with PEER while sending RCPT TO"),
        ({"DATA": "close"}, "lost connection with PEER while sending DATA command"),
        (
            {"DOT": "close"},
            "lost connection with PEER while sending end of data -- message may be sent more than once",
        ),
        ({"GREETING": "silence"}, "conversation with PEER timed out while receiving the initial server greeting"),
        ({"MAIL": "silence"}, "conversation with PEER timed out while sending MAIL FROM"),
        (
            {"DOT": "silence"},
            "conversation with PEER timed out while sending end of data -- message may be sent more than once",
        ),
    ],
)
def test_broken_conversations(drive: Drive, replies: dict[str, str], text: str) -> None:
    async def test(agent: Agent) -> None:
        # One command at a time, so that the place is certain.
        plain = {"EHLO": "250 sink.example", **replies}
        async with SmtpSink(plain) as sink:
            reply = await agent.deliver(f"[127.0.0.1]:{sink.port}")
            wanted = text.replace("PEER", "127.0.0.1[127.0.0.1]")
            assert outcomes(reply) == [(0, "deferred", "4.4.2", wanted)]
            assert reply.site_dead == wanted

    drive(test, smtp_helo_timeout="1", smtp_mail_timeout="1", smtp_data_done_timeout="1")


def test_no_connection(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            port = sink.port
        reply = await agent.deliver(f"[127.0.0.1]:{port}")
        text = f"connect to 127.0.0.1[127.0.0.1]:{port}: Connection refused"
        assert outcomes(reply) == [(0, "deferred", "4.4.1", text)]
        assert (reply.site_dead, reply.site_dsn) == (text, "4.4.1")
        assert agent.lines[0] == text
        assert "relay=none, " in agent.lines[1]

    drive(test)


def test_the_next_server_gets_what_the_first_refuses_for_now(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        replies = {"RCPT:later@d.example": "450 4.2.1 no", "RCPT:never@d.example": "550 5.1.1 no"}
        async with SmtpSink(replies) as first, SmtpSink(host="127.0.0.2") as second:
            nexthop = f"[127.0.0.1]:{first.port}, [127.0.0.2]:{second.port}"
            reply = await agent.deliver(nexthop, b"now@d.example", b"later@d.example", b"never@d.example")
            assert [entry[1] for entry in outcomes(reply)] == ["sent", "sent", "bounced"]
            assert [line for line in second.commands if "RCPT" in line] == [
                "RCPT TO:<later@d.example> ORCPT=rfc822;later@d.example"
            ]
            assert "Q1: host 127.0.0.1[127.0.0.1] said: 450 4.2.1 no (in reply to RCPT TO command)" in agent.lines

    drive(test)


@pytest.mark.parametrize("first", ["421 busy", "close", "554 no"])
def test_the_next_server_is_tried_after_a_bad_greeting(drive: Drive, first: str) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink({"GREETING": first}) as bad, SmtpSink(host="127.0.0.2") as good:
            reply = await agent.deliver(f"[127.0.0.1]:{bad.port}, [127.0.0.2]:{good.port}")
            assert outcomes(reply)[0][1] == "sent"
            assert not reply.site_dead

    drive(test)


def test_fallback_relay_after_a_temporary_failure(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink({"MAIL": "451 4.3.0 no"}) as first, SmtpSink(host="127.0.0.2", port=0) as second:
            agent.smtp.settings = dataclasses.replace(
                agent.smtp.settings, fallback_relay=(f"[127.0.0.2]:{second.port}",)
            )
            reply = await agent.deliver(f"[127.0.0.1]:{first.port}")
            assert outcomes(reply)[0][1] == "sent"

    drive(test)


def test_sessions_are_reused_while_there_is_demand(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            nexthop = f"[127.0.0.1]:{sink.port}"
            for _ in range(4):
                assert outcomes(await agent.deliver(nexthop))[0][1] == "sent"
            # Nobody waited behind the first; the second came soon after it.
            assert [len(session.contents) for session in sink.sessions] == [1, 3]
            assert sink.sessions[0].commands[-1] == "QUIT"
            assert [re.search(r"conn_use=\d", line) is not None for line in agent.lines] == [False, False, True, True]
            assert "conn_use=3" in agent.lines[3]

    drive(test)


def test_an_idle_session_says_quit(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            await agent.deliver(f"[127.0.0.1]:{sink.port}")
            while not sink.sessions[0].ended:
                sink.changed.clear()
                await sink.changed.wait()
            assert sink.commands[-1] == "QUIT"
            assert not agent.smtp.cache.idle_sessions()

    drive(test, smtp_connection_cache_destinations="127.0.0.1", smtp_connection_cache_time_limit="1s")


@pytest.mark.parametrize("how", ["hang up", "421", "close"])
def test_a_dead_kept_session_does_no_harm(drive: Drive, how: str) -> None:
    async def test(agent: Agent) -> None:
        mails = {"421": ["250 ok", "421 bye close", "250 ok"], "close": ["250 ok", "close", "250 ok"]}.get(how, "250 ok")
        async with SmtpSink({"MAIL": mails}) as sink:
            nexthop = f"[127.0.0.1]:{sink.port}"
            await agent.deliver(nexthop)
            assert len(agent.smtp.cache.idle_sessions()) == 1
            if how == "hang up":
                sink.hang_up()
            reply = await agent.deliver(nexthop)
            assert outcomes(reply)[0][1] == "sent"
            assert len(sink.sessions) == 2
            assert not [line for line in agent.lines if "lost connection" in line]

    drive(test, smtp_connection_cache_destinations="127.0.0.1")


def test_reuse_count_limit(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            for _ in range(4):
                await agent.deliver(f"[127.0.0.1]:{sink.port}")
            assert [len(session.contents) for session in sink.sessions] == [2, 2]

    drive(test, smtp_connection_cache_destinations="127.0.0.1", smtp_connection_reuse_count_limit="2")


def test_many_at_once(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            nexthop = f"[127.0.0.1]:{sink.port}"
            replies = await asyncio.gather(*(agent.deliver(nexthop) for _ in range(60)))
            assert {outcomes(reply)[0][1] for reply in replies} == {"sent"}
            assert len(sink.contents) == 60
            assert len(sink.sessions) <= 11

    drive(test, limit=10)


def test_dots_and_long_lines(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            content = b".a\r\n..b\r\n" + b"x" * 1500 + b"\r\n.\r\n"
            await agent.deliver(f"[127.0.0.1]:{sink.port}", content=content)
            assert sink.contents == [b"..a\r\n...b\r\n" + b"x" * 998 + b"\r\n " + b"x" * 502 + b"\r\n..\r\n"]

    drive(test)


def test_large_content_is_streamed(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            line = b".0123456789" * 7 + b"\r\n"
            content = line * 40000
            await agent.deliver(f"[127.0.0.1]:{sink.port}", content=content)
            assert sink.contents == [b"".join([b".", line]) * 40000]

    drive(test)


def test_size_limit_of_the_server(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink({"EHLO": "250-sink.example\r\n250 SIZE 30"}) as sink:
            reply = await agent.deliver(f"[127.0.0.1]:{sink.port}")
            text = "message size 41 exceeds size limit 30 of server 127.0.0.1[127.0.0.1]"
            assert outcomes(reply) == [(0, "bounced", "5.3.4", text)]
            assert sink.commands[-1] == "QUIT"

    drive(test)


def test_utf8_that_the_server_cannot_take(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            nexthop = f"[127.0.0.1]:{sink.port}"
            flags = int(ContentFlag.SMTPUTF8 | ContentFlag.NO_DOT_LINES)
            assert outcomes(await agent.deliver(nexthop, flags=flags))[0][1] == "sent"
            reply = await agent.deliver(nexthop, "señor@d.example".encode(), flags=flags)
            text = "SMTPUTF8 is required, but was not offered by host 127.0.0.1[127.0.0.1]"
            assert outcomes(reply) == [(0, "bounced", "5.6.7", text)]

    drive(test)


def test_soft_bounce(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink({"RCPT": "550 5.1.1 no"}) as sink:
            assert outcomes(await agent.deliver(f"[127.0.0.1]:{sink.port}"))[0][1:3] == ("deferred", "4.1.1")

    drive(test, soft_bounce="yes")


def test_dsn_parameters(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            request = agent.request(f"[127.0.0.1]:{sink.port}", b"to@d.example", envid=b"a+3Db", ret="HDRS")
            request.envelope.recipients[0].notify = 6
            request.envelope.recipients[0].orcpt = b"rfc822;x+2By@d.example"
            reply = await agent.submit(request)
            assert isinstance(reply, DeliverReply)
            assert sink.commands[1:3] == [
                "MAIL FROM:<from@b.example> SIZE=41 ENVID=a+3Db RET=HDRS",
                "RCPT TO:<to@d.example> ORCPT=rfc822;x+2By@d.example NOTIFY=SUCCESS,FAILURE",
            ]
            assert reply.results[0].action == ""

    drive(test)


def test_tls_that_is_required_is_never_skipped(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            reply = await agent.deliver(f"[127.0.0.1]:{sink.port}")
            text = "TLS is required, but was not offered by host 127.0.0.1[127.0.0.1]"
            assert outcomes(reply) == [(0, "deferred", "4.7.4", text)]
            assert not [line for line in sink.commands if line.startswith("MAIL")]

    drive(test, smtp_tls_security_level="encrypt")


def test_lmtp_over_a_unix_socket(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        replies: dict[str, str | list[str]] = {"DOT": ["250 2.0.0 one", "452 4.2.2 two is full"]}
        async with SmtpSink(replies, lmtp=True, path="lmtp.sock"):
            reply = await agent.deliver("unix:lmtp.sock", b"one@d.example", b"two@d.example")
            assert outcomes(reply) == [
                (0, "sent", "2.0.0", "250 2.0.0 one"),
                (
                    1,
                    "deferred",
                    "4.2.2",
                    "host me.example[lmtp.sock] said: 452 4.2.2 two is full (in reply to end of DATA command)",
                ),
            ]
            assert "relay=me.example[lmtp.sock], " in agent.lines[0]
        reply = await agent.deliver("unix:missing.sock")
        assert outcomes(reply)[0][3] == "connect to me.example[missing.sock]: No such file or directory"

    drive(test, command="lmtp")


def test_a_missing_queue_file_defers(drive: Drive) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink() as sink:
            request = agent.request(f"[127.0.0.1]:{sink.port}")
            (agent.directory / request.place.segment).unlink()
            reply = await agent.submit(request)
            assert isinstance(reply, DeliverReply)
            assert outcomes(reply)[0][1:3] == ("deferred", "4.3.0")
            assert sink.contents == []

    drive(test)


@pytest.mark.parametrize("hello", ["250-sink.example\r\n250 PIPELINING", "250 sink.example"])
def test_a_probe_sends_nothing(drive: Drive, hello: str) -> None:
    async def test(agent: Agent) -> None:
        async with SmtpSink({"EHLO": hello, "RCPT:no@d.example": "550 5.1.1 no"}) as sink:
            flags = int(ContentFlag.TRACE | ContentFlag.NO_DOT_LINES)
            nexthop = f"[127.0.0.1]:{sink.port}"
            reply = await agent.deliver(nexthop, b"yes@d.example", b"no@d.example", flags=flags)
            assert [entry[1:3] for entry in outcomes(reply)] == [("sent", "2.1.5"), ("bounced", "5.1.1")]
            assert outcomes(await agent.deliver(nexthop))[0][1] == "sent"
            assert len(sink.contents) == 1
            assert "RSET" in sink.commands
            assert sink.commands.count("DATA") == 1

    drive(test, smtp_connection_cache_destinations="127.0.0.1")

"""Results and log lines of deliveries, one server."""

from __future__ import annotations

import re
from collections.abc import Callable

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
                "RCPT TO:<to@d.example>",
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

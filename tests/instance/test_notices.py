"""Notices to the postmaster: which classes, to whom, never a password, never a loop, nothing kept when nobody asks."""

from __future__ import annotations

import base64
from pathlib import Path

from support.instance import Client, Instance, running, wait_for
from support.smtp_sink import SmtpSink
from support.smtp_sink_thread import SinkThread

TO = """\
error_notice_recipient = errors@box.test
bounce_notice_recipient = bounces@box.test
2bounce_notice_recipient = double@box.test
delay_notice_recipient = delays@box.test
smtpd_error_sleep_time = 0
"""


def _read(paths: list[Path]) -> list[str]:
    return [path.read_text() for path in paths]


def _mails(instance: Instance, user: str, count: int = 1) -> list[str]:
    wait_for(lambda: len(instance.mailbox(user)) >= count, what=f"{count} for {user}\n{instance.log()[-2000:]}")
    return _read(instance.mailbox(user))


def _session(instance: Instance, *commands: bytes) -> None:
    with Client(instance.port) as client:
        client.reply()
        for command in commands:
            client.ask(command)


def _submit(instance: Instance, sender: str, recipient: str, subject: str) -> None:
    done = instance.command("sendmail", "-f", sender, recipient, input=f"Subject: {subject}\n\nbody line\n")
    assert done.returncode == 0, done.stderr


def test_the_default_tells_of_resources_and_software_alone() -> None:
    with running(TO + "queue_minfree = 1000000000000000\n") as instance:
        _session(instance, b"EHLO a", b"JUNK", b"MAIL FROM:<a@x.test>", b"QUIT")
        # The session was told of for want of space; the transcript has the rest, too. (The notice itself needs no such space.)
        (text,) = _mails(instance, "errors")
        assert " In:  MAIL FROM:<a@x.test>\n Out: 452 4.3.1 Insufficient system storage\n" in text
        assert " In:  JUNK\n Out: 500 5.5.2 Error: command not recognized\n" in text
        _session(instance, b"EHLO a", b"JUNK", b"RCPT TO:<a@elsewhere.test>", b"QUIT")
        instance.wait_log("disconnect from", count=2)
        wait_for(instance.queue_is_empty, what="an empty queue")
        assert len(instance.mailbox("errors")) == 1


def test_nothing_for_an_empty_list() -> None:
    with running(TO + "queue_minfree = 1000000000000000\nnotify_classes =\n") as instance:
        _session(instance, b"EHLO a", b"JUNK", b"MAIL FROM:<a@x.test>", b"QUIT")
        instance.wait_log("disconnect from")
        wait_for(instance.queue_is_empty, what="an empty queue")
        assert instance.mailbox("errors") == []


def test_policy_and_the_postmaster_of_the_notice() -> None:
    with running(TO + "notify_classes = policy\nmynetworks = 127.0.0.9\n") as instance:
        _session(instance, b"EHLO a", b"MAIL FROM:<a@x.test>", b"RCPT TO:<a@elsewhere.test>", b"QUIT")
        (text,) = _mails(instance, "errors")
        assert "\nFrom: Mail Delivery System <MAILER-DAEMON@mail.test.example>\nTo: Postmaster <errors@box.test>\n" in text
        assert "\nSubject: Postfix SMTP server: errors from localhost[127.0.0.1]\n" in text
        assert text.startswith("Return-Path: <double-bounce@mail.test.example>\n")
        assert " Out: 454 4.7.1 <a@elsewhere.test>: Relay access denied\n In:  QUIT\n Out: 221 2.0.0 Bye\n" in text
        _session(instance, b"EHLO a", b"JUNK", b"QUIT")  # protocol: not asked for
        instance.wait_log("disconnect from", count=2)
        wait_for(instance.queue_is_empty, what="an empty queue")
        assert len(instance.mailbox("errors")) == 1


def test_content_is_not_in_a_transcript() -> None:
    with running(TO + "notify_classes = protocol\n") as instance:
        _session(instance, b"EHLO a", b"MAIL FROM:<a@x.test>", b"RCPT TO:<joe@box.test>", b"DATA",
                 b"Subject: private\r\n\r\nvery private\r\n.", b"JUNK", b"QUIT")  # fmt: skip
        (text,) = _mails(instance, "errors")
        assert " In:  DATA\n Out: 354 End data with <CR><LF>.<CR><LF>\n Out: 250 2.0.0 Ok: queued as " in text
        assert "private" not in text


def test_no_password_is_in_a_transcript() -> None:
    secret = base64.b64encode(b"\0user\0correct horse")
    user, password = base64.b64encode(b"user"), base64.b64encode(b"correct horse")
    with running(TO + "notify_classes = protocol, policy\n") as instance:
        # AUTH that is not offered: what follows may be what the client believes to be asked for.
        _session(instance, b"EHLO a", b"AUTH PLAIN " + secret, b"AUTH LOGIN", user, password, b"correct horse", b"QUIT")
        (text,) = _mails(instance, "errors")
        assert " In:  AUTH PLAIN (not shown)\n" in text and " In:  AUTH LOGIN\n" in text
        for word in (secret, user, password, b"correct"):
            assert word.decode() not in text
            assert word.decode() not in instance.log()


def test_a_session_of_many_errors_is_bounded() -> None:
    with running(TO + "notify_classes = protocol\nsmtpd_hard_error_limit = 1000000\nsmtpd_soft_error_limit = 1000000\n") as instance:
        with Client(instance.port) as client:
            client.reply()
            for _ in range(20):
                client.socket.sendall(b"JUNK\r\n" * 500)
                for _ in range(500):
                    assert client.reply().startswith(b"500 ")
            client.ask(b"QUIT")
        (text,) = _mails(instance, "errors")
        assert "more left out)" in text and len(text) < 70_000


def test_bounces_delays_and_their_failures() -> None:
    settings = TO + """\
notify_classes = bounce, delay
transport_maps = inline:{ {no.test = error:5.1.1 no such user}, {later.test = retry:4.3.0 not now} }
delay_warning_time = 1s
"""
    with running(settings) as instance:
        _submit(instance, "joe@box.test", "x@no.test", "hello")
        (copy,) = _mails(instance, "bounces")
        assert "Postmaster Copy" in copy and "Subject: hello" in copy and "body line" not in copy, "headers alone"
        (own,) = _mails(instance, "joe")
        assert "body line" in own
        # bounce implies 2bounce: a bounce that bounces, all of it.
        _submit(instance, "nobody@no.test", "x@no.test", "lost")
        (double,) = _mails(instance, "double")
        assert "body line" in double
        _submit(instance, "joe@box.test", "x@later.test", "slow")
        (delayed,) = _mails(instance, "delays")
        assert "Subject: slow" in delayed and "body line" not in delayed
        # An unknown recipient is of class bounce, and the transcript goes where bounces go.
        instance.write("mailboxes", "/^(joe|errors|bounces|double|delays)@box\\.test$/ ${1}/\n")
        assert instance.command("postfix", "reload").returncode == 0
        instance.wait_log("reload -- version")
        _session(instance, b"EHLO a", b"MAIL FROM:<joe@box.test>", b"RCPT TO:<gone@box.test>", b"QUIT")
        transcripts = [text for text in _mails(instance, "bounces", 3) if "SMTP server: errors from" in text]
        assert len(transcripts) == 1 and "550 5.1.1 <gone@box.test>" in transcripts[0]


def test_the_client_tells_of_servers_and_never_of_its_own_notices() -> None:
    odd = SmtpSink({"RCPT": "501 5.5.4 what?"})
    with SinkThread(odd) as sink:
        settings = f"""\
notify_classes = protocol
error_notice_recipient = postmaster@odd.test
transport_maps = inline:{{ {{odd.test = smtp:[127.0.0.1]:{sink.port}}} }}
"""
        with running(settings) as instance:
            _session(instance, b"EHLO a", b"MAIL FROM:<joe@box.test>", b"RCPT TO:<x@odd.test>", b"DATA", b"a: b\r\n\r\nx\r\n.", b"QUIT")
            # The mail, then the notice about its session, which meets the same server: nobody is told of that.
            instance.wait_log(r"to=<postmaster@odd\.test>.*status=bounced")
            wait_for(instance.queue_is_empty, what="an empty queue")
            assert len(sink.sessions) == 2
            assert len(instance.mailbox("joe")) == 1


def test_the_clients_transcript() -> None:
    with SinkThread(SmtpSink({"RCPT": "501 5.5.4 what?"})) as sink:
        transport = f"transport_maps = inline:{{ {{odd.test = smtp:[127.0.0.1]:{sink.port}}} }}\n"
        with running(TO + "notify_classes = protocol\n" + transport) as instance:
            _session(instance, b"EHLO a", b"MAIL FROM:<joe@box.test>", b"RCPT TO:<x@odd.test>", b"DATA", b"a: b\r\n\r\nx\r\n.", b"QUIT")
            (text,) = _mails(instance, "errors")
            assert f"Subject: Postfix SMTP client: errors from 127.0.0.1[127.0.0.1]:{sink.port}\n" in text
            assert " In:  220 sink.example ESMTP\n Out: EHLO mail.test.example\n In:  250-sink.example\n" in text
            assert " Out: RCPT TO:<x@odd.test>" in text and " In:  501 5.5.4 what?\n" in text

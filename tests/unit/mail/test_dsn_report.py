"""Notices: their form, folding, templates."""

from __future__ import annotations

from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.mail.bounce_template import DEFAULTS, TemplateError, expand, parse_templates
from estafeta.mail.dsn_report import Report, Reported, build, fold, header_block, standard_from, unxtext


def _report(**changes: object) -> Report:
    values: dict[str, object] = {
        "queue_id": "ABC123DEF0", "sender": b"joe@example.com", "arrived_at": 1795363606.0, "now": 1795363607.0,
        "to": b"joe@example.com", "subject": "Undelivered Mail Returned to Sender",
        "header_from": "Mail Delivery System <MAILER-DAEMON@mail.example.com>", "text": "This is the mail system.\n",
        "myhostname": "mail.example.com", "mail_name": "Postfix",
        "recipients": [Reported(b"a@b.example", "failed", "5.1.1", "User unknown")],
        "returned": b"Subject: x\r\n\r\nbody\r\n",
    }  # fmt: skip
    return Report(**(values | changes))  # type: ignore[arg-type]


def test_parts() -> None:
    message = message_from_bytes(build(_report(envid=b"e+2Bx")), policy=policy.default)
    assert message.get_content_type() == "multipart/report"
    assert message.get_boundary() == "ABC123DEF0.1795363607/mail.example.com"
    people, status, original = message.iter_parts()
    assert "<a@b.example>: User unknown" in people.get_content()
    text = status.as_bytes().decode()
    for line in (
        "Reporting-MTA: dns; mail.example.com", "Original-Envelope-Id: e+x", "X-Postfix-Queue-ID: ABC123DEF0",
        "X-Postfix-Sender: rfc822; joe@example.com", "Final-Recipient: rfc822; a@b.example",
        "Original-Recipient: rfc822;a@b.example", "Action: failed", "Status: 5.1.1",
        "Diagnostic-Code: X-Postfix; User unknown",
    ):  # fmt: skip
        assert line in text.splitlines()
    assert original.get_content_type() == "message/rfc822"
    assert b"Return-Path: <joe@example.com>\r\nSubject: x" in build(_report())


def test_remote_delayed_utf8() -> None:
    item = Reported("ü@b.example".encode(), "delayed", "4.4.1", "host said no", b"o@b", b"rfc822;o+2Bq@b", "mx.b", "450 no")
    text = build(_report(recipients=[item], utf8=True, headers_only=True, retry_until=1795363999.0)).decode()
    assert "Final-Recipient: utf-8; ü@b.example\r\nOriginal-Recipient: rfc822;o+q@b\r\n" in text
    assert "Remote-MTA: dns; mx.b\r\nDiagnostic-Code: smtp; 450 no\r\nWill-Retry-Until: " in text
    assert "<ü@b.example> (expanded from <o@b>): host said no" in text
    assert "Content-Type: message/global-headers" in text
    assert "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n" in text


def test_without_original_and_text() -> None:
    data = build(_report(returned=b"", text=""))
    assert data.endswith(b"\r\n--ABC123DEF0.1795363607/mail.example.com--\r\n")
    assert b"8bit\r\n\r\n\r\n<a@b.example>" in data


@given(st.text(max_size=400))
def test_fold(text: str) -> None:
    folded = fold(text)
    assert folded.split() == text.split()
    for line in folded.split("\n"):
        assert len(line) <= 79 or len(line.split()) == 1


def test_fold_as_postfix() -> None:
    text = "<someone@sink.example>: connect to 127.0.0.1[127.0.0.1]:2661: Connection refused"
    assert fold(text) == text.replace(" refused", "\n    refused")
    assert fold(text.replace("someone", "user")) == text.replace("someone", "user")


def test_header_block() -> None:
    assert header_block(b"A: 1\r\nB: 2\r\n\r\nbody") == b"A: 1\r\nB: 2\r\n"
    assert header_block(b"A: 1\r\nB: 2\r\n\r\nbody", 8) == b"A: 1\r\n"
    assert header_block(b"\r\nbody") == b""


@given(st.binary(max_size=60))
def test_unxtext(data: bytes) -> None:
    unxtext(data)


def test_standard_from() -> None:
    assert standard_from("MAILER-DAEMON (Mail System)", "h") == "Mail System <MAILER-DAEMON@h>"
    assert standard_from("Me <a@b>", "h") == "Me <a@b>"


def test_templates() -> None:
    found = parse_templates("# x\n\nfailure_template = <<EOF\nSubject: No\n\nAt $myhostname $$5 ${delay_warning_time_hours}\nEOF\n")
    assert found["failure_template"].subject == "No"
    assert found["delay_template"] == DEFAULTS["delay_template"]
    text = expand(found["failure_template"].text, {"myhostname": "h"}.__getitem__, lambda name: 7200.0)
    assert text == "At h $5 2\n"


@pytest.mark.parametrize("text", ["x", "foo_template = <<E\nE\n", "failure_template = <<E\nno end", "failure_template = <<E\nX-Y: z\n\nE"])
def test_bad_templates(text: str) -> None:
    with pytest.raises(TemplateError):
        parse_templates(text)


@given(st.text(max_size=200))
def test_template_parser(text: str) -> None:
    try:
        parse_templates("delay_template = <<E\n" + text)
    except TemplateError:
        pass

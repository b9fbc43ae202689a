"""sendmail -bv and -v: the report arrives; -bv delivers nothing, bounces nothing, defers nothing."""

from __future__ import annotations

import email
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.instance import Instance, running, wait_for
from support.smtp_sink import SmtpSink
from support.smtp_sink_thread import SinkThread


@pytest.fixture(scope="module")
def sink() -> Iterator[SmtpSink]:
    replies: dict[str, str | list[str]] = {"RCPT:bad@out.test": "550 5.1.1 no", "RCPT:later@out.test": "450 4.2.0 later"}
    with SinkThread(SmtpSink(replies)) as running_sink:
        yield running_sink


@pytest.fixture(scope="module")
def instance(sink: SmtpSink) -> Iterator[Instance]:
    where = Path("/tmp") / f"estafeta-verify-{os.getpid()}-{time.time_ns()}"
    where.mkdir()
    shutil.chown(where, "nobody", "nogroup") if os.geteuid() == 0 else None
    settings = (
        f"transport_maps = inline:{{ {{ out.test = smtp:[127.0.0.1]:{sink.port} }}, {{ bad.test = error:5.1.2 nobody }}, "
        "{ later.test = retry:4.1.2 later }, { discard.test = discard: } }\n"
        "mydestination = local.test\n"
        f"alias_maps = inline:{{ {{ tofile = {where}/file }}, {{ cmd = \"|/usr/bin/touch {where}/cmd\" }}, "
        "{ other = elsewhere@discard.test } }\nallow_mail_to_files = alias\n"
        "virtual_alias_maps = inline:{ { two@box.test = u2@box.test, u3@box.test } }\n"
    )
    with running(settings) as started:
        started.where = where  # type: ignore[attr-defined]
        yield started
    shutil.rmtree(where)


def report(instance: Instance, user: str, *arguments: str, text: str = "Subject: s\n\nbody\n") -> dict[str, tuple[str, str]]:
    """Recipient -> (action, status) of the report that ``user`` gets."""
    before = set(instance.mailbox(user))
    result = instance.command("sendmail", "-f", f"{user}@box.test", *arguments, input=text)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    wait_for(lambda: set(instance.mailbox(user)) - before, 15, "the report")
    new = set(instance.mailbox(user)) - before
    assert len(new) == 1, instance.log()
    (path,) = new
    parsed = email.message_from_bytes(path.read_bytes())
    assert parsed["Subject"] == "Mail Delivery Status Report", parsed["Subject"]
    (status,) = (part for part in parsed.walk() if part.get_content_type() == "message/delivery-status")
    found = {}
    for block in status.get_payload():
        if block["Final-Recipient"]:
            found[block["Final-Recipient"].partition(";")[2].strip()] = (block["Action"].split()[0], block["Status"])
    wait_for(instance.queue_is_empty, 15, "an empty queue")
    return found


@pytest.mark.parametrize(
    ("recipient", "action", "status"),
    [
        ("u1@box.test", "deliverable", "2.0.0"),
        ("good@out.test", "deliverable", "2."),
        ("bad@out.test", "undeliverable", "5.1.1"),
        ("later@out.test", "undeliverable", "4.2.0"),
        ("x@bad.test", "undeliverable", "5.1.2"),
        ("x@later.test", "undeliverable", "4.1.2"),
        ("x@discard.test", "deliverable", "2.0.0"),
        ("tofile@local.test", "deliverable", "2."),
        ("cmd@local.test", "deliverable", "2."),
        ("nobody-at-all@local.test", "undeliverable", "5.1.1"),
    ],
)
def test_verify(instance: Instance, sink: SmtpSink, recipient: str, action: str, status: str) -> None:
    contents = len(sink.contents)
    found = report(instance, "rep", "-bv", recipient)
    assert len(found) == 1, found
    ((_, (got_action, got_status)),) = found.items()
    assert got_status.startswith(status), found
    assert got_action == action, found
    assert re.search(rf"to=<{re.escape(recipient)}>.*status={action} ", instance.log())
    assert instance.mailbox("u1") == [], "something was delivered"
    assert len(sink.contents) == contents, "something was sent"
    assert list(instance.where.iterdir()) == []  # type: ignore[attr-defined]


def test_verify_expands_aliases(instance: Instance) -> None:
    found = report(instance, "rep", "-bv", "two@box.test", "u1@box.test")
    assert found == {f"u{n}@box.test": ("deliverable", "2.0.0") for n in (1, 2, 3)}
    assert instance.mailbox("u2") == instance.mailbox("u3") == []


def test_deliver_and_report(instance: Instance) -> None:
    found = report(instance, "rep", "-v", "u7@box.test")
    assert found == {"u7@box.test": ("delivered", "2.0.0")}
    assert len(instance.mailbox("u7")) == 1

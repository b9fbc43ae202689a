"""docs/tutorial.md, chapters 1 to 3: every block is read from the page, started and used. The Spanish page has the same blocks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.instance import Client, Instance, wait_for
from support.ports import free_port
from support.tutorial import blocks, instance_of, without_comments


@contextmanager
def started(*instances: Instance) -> Iterator[None]:
    """All of them run; none has said anything unexpected at the end."""
    try:
        for instance in instances:
            check = instance.command("postfix", "check")
            assert check.returncode == 0, check.stderr
            instance.start()
        yield
        for instance in instances:
            assert instance.unexpected() == []
            instance.stop()
    finally:
        for instance in instances:
            if instance.processes():
                instance.command("postfix", "abort")
            instance.remove()


def send(instance: Instance, *recipients: bytes, sender: bytes = b"ana@world.example", text: bytes = b"x", port: int = 0) -> bytes:
    """One message; the last reply."""
    with Client(port or instance.port) as client:
        client.reply()
        client.ask(b"EHLO client.world.example")
        return client.send(sender, list(recipients), b"Subject: tutorial\r\n\r\n" + text)


def test_both_languages_have_the_same_blocks() -> None:
    """But for comments, which are in the language of the page."""
    english, spanish = blocks("en"), blocks("es")
    assert list(english) == list(spanish)
    for scene, files in english.items():
        assert list(files) == list(spanish[scene])
        for file, text in files.items():
            assert without_comments(text) == without_comments(spanish[scene][file]), (scene, file)


def test_every_scene_has_a_test() -> None:
    """A new block wants a new test: these are the scenes that the tests play."""
    source = "".join(path.read_text() for path in __import__("pathlib").Path(__file__).parent.glob("test_tutorial_page*.py"))
    missing = [scene for scene in blocks("en") if f'instance_of("{scene}"' not in source and f'blocks("en")["{scene}"]' not in source]
    assert missing == []


def test_tables() -> None:
    instance = instance_of("tables")
    database = sqlite3.connect(instance.etc / "aliases.sqlite")
    with database:
        database.execute("CREATE TABLE alias (address TEXT, goto TEXT, active INTEGER)")
        database.execute("INSERT INTO alias VALUES ('staff@lists.campus.example', 'ann@box.test, bob@box.test', 1)")
        database.execute("INSERT INTO alias VALUES ('old@lists.campus.example', 'ann@box.test', 0)")
    database.close()
    asked = instance.command("postmap", "-q", "staff@lists.campus.example", f"sqlite:{instance.etc}/aliases.cf")
    assert (asked.returncode, asked.stdout) == (0, "ann@box.test, bob@box.test\n"), asked.stderr
    with open(instance.etc / "main.cf", "a") as file:
        file.write("virtual_mailbox_domains = box.test\n")
    with started(instance):
        assert send(instance, b"staff@lists.campus.example").startswith(b"250 ")
        assert send(instance, b"old@lists.campus.example").startswith(b"550 5.1.1 ")
        wait_for(lambda: instance.mailbox("ann") and instance.mailbox("bob"), what="mail for both")


def test_first() -> None:
    instance = instance_of("first")
    assert instance.command("newaliases").returncode == 0
    with started(instance):
        sent = instance.command("sendmail", "team@campus.example", input="Subject: first\n\nlight\n")
        assert sent.returncode == 0, sent.stderr
        wait_for(lambda: instance.mailbox("games") and instance.mailbox("mail"), what="mail for the team")
        assert send(instance, b"games+tag@campus.example").startswith(b"250 ")
        assert send(instance, b"nobody-such@campus.example").startswith(b"550 5.1.1 ")
        with Client(instance.port) as client:
            assert client.reply() == b"220 mail.campus.example ESMTP\r\n"
            client.ask(b"EHLO x")
            assert client.ask(b"VRFY games").startswith(b"502 5.5.1 ")
            assert client.ask(b"MAIL FROM:<a@b.example> SIZE=20000000").startswith(b"552 5.3.4 ")
        assert "is empty" in instance.command("mailq").stdout
        assert instance.command("postconf", "-h", "message_size_limit").stdout == "10485760\n"


def test_relay_and_host() -> None:
    """Chapter 2: from the world through the relay to the host, from the host through the relay to the world."""
    world, chemistry = free_port(), free_port()
    host = instance_of("host", replace={"relayhost = [relay.campus.example]": "relayhost = [127.0.0.1]:RELAY"})
    relay = instance_of(
        "relay",
        replace={
            "[mail.campus.example]": f"[127.0.0.1]:{host.port}",
            "[mail.chemistry.campus.example]": f"[127.0.0.1]:{chemistry}",
        },
        more=f"relayhost = [127.0.0.1]:{world}\n",
    )
    text = (host.etc / "main.cf").read_text()
    host.write("main.cf", text.replace(":RELAY", f":{relay.port}") + "local_recipient_maps =\n")
    made = relay.command("postmap", f"{relay.etc}/transport")
    assert made.returncode == 0, made.stderr
    with started(host, relay):
        assert send(relay, b"games@campus.example").startswith(b"250 ")
        wait_for(lambda: host.mailbox("games"), what="mail from the world")
        headers = host.mailbox("games")[0].read_text()
        assert headers.count("Received: ") == 2 and "by relay.campus.example" in headers
        assert send(host, b"friend@world.example", sender=b"games@campus.example").startswith(b"250 ")
        relay.wait_log(rf"to=<friend@world.example>, relay=none, .*status=deferred \(connect to 127.0.0.1\[127.0.0.1\]:{world}: ")
        assert send(relay, b"x@sub.chemistry.campus.example").startswith(b"250 ")
        relay.wait_log(rf"to=<x@sub.chemistry.campus.example>, relay=none, .*\[127.0.0.1\]:{chemistry}: ")


def test_relay_is_not_open() -> None:
    relay = instance_of("relay", replace={"127.0.0.0/8, 192.168.0.0/16": "192.168.0.0/16"})
    relay.command("postmap", f"{relay.etc}/transport")
    with started(relay):
        assert b"454 4.7.1" in send(relay, b"x@elsewhere.example") or b"554 5.7.1" in send(relay, b"x@elsewhere.example")
        assert send(relay, b"games@campus.example").startswith(b"250 ")


def test_second_domain_with_the_same_users() -> None:
    instance = instance_of("second-same", more="local_recipient_maps =\n")
    with started(instance):
        assert send(instance, b"anna@foundation.example", b"anna@campus.example").startswith(b"250 ")
        wait_for(lambda: len(instance.mailbox("anna")) == 2, what="both messages")


def test_second_domain_of_its_own() -> None:
    instance = instance_of("second-own", more="local_recipient_maps =\n")
    assert instance.command("postmap", f"{instance.etc}/virtual").returncode == 0
    with started(instance):
        assert send(instance, b"director@foundation.example").startswith(b"250 ")
        assert send(instance, b"office@foundation.example").startswith(b"250 ")
        assert send(instance, b"janitor@foundation.example").startswith(b"550 5.1.1 ")
        wait_for(lambda: len(instance.mailbox("games")) == 2 and instance.mailbox("mail"), what="mail by other names")
        looked = instance.command("postmap", "-q", "treasurer@foundation.example", f"hash:{instance.etc}/virtual")
        assert looked.stdout == "heras@elsewhere.example\n"


def test_move() -> None:
    """One line changes; the next message goes to the new host."""
    old, new = instance_of("host", more="local_recipient_maps =\n"), instance_of("host", more="local_recipient_maps =\n")
    for host in (old, new):
        text = (host.etc / "main.cf").read_text()
        host.write("main.cf", text.replace("$mydomain\nmynetworks", "$mydomain, foundation.example\nmynetworks"))
    ports = {"[mail.campus.example]": f"[127.0.0.1]:{old.port}", "[mail.foundation.example]": f"[127.0.0.1]:{new.port}"}
    relay = instance_of("relay", replace={**ports, "chemistry.campus.example\n": "foundation.example\n"})
    moved = blocks("en")["moved"]["transport"]
    for name, port in ports.items():
        moved = moved.replace(name, port)
    relay.write("transport", moved.replace(str(new.port), str(old.port)))
    relay.command("postmap", f"{relay.etc}/transport")
    with started(old, new, relay):
        assert send(relay, b"anna@foundation.example").startswith(b"250 ")
        wait_for(lambda: old.mailbox("anna"), what="mail at the old host")
        relay.write("transport", moved)
        assert relay.command("postmap", f"{relay.etc}/transport").returncode == 0
        assert relay.command("postfix", "reload").returncode == 0

        def arrives() -> bool:
            return send(relay, b"anna@foundation.example").startswith(b"250 ") and bool(new.mailbox("anna"))

        wait_for(arrives, 20, what="mail at the new host")


@pytest.mark.parametrize("language", ["en", "es"])
def test_page_is_whole(language: str) -> None:
    """Seven chapters, and no block without a name."""
    from support.tutorial import PAGES

    text = PAGES[language].read_text()
    assert [f"\n## {number}. " in text for number in range(1, 8)] == [True] * 7
    assert text.count("\n```\n") == 2 * text.count("<!-- block: ") + text.count("\n```sh\n")

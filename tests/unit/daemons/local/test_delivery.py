"""local(8) in one process: real tables and files, a stand-in for the queue and the rewriting service."""

from __future__ import annotations

import asyncio
import os
import pwd
from pathlib import Path
from typing import Any

import pytest

from estafeta.config.config import load_config
from estafeta.config.master_cf import parse_master_cf
from estafeta.daemons.local.service import Local
from estafeta.daemons.virtual.service import Virtual
from estafeta.delivery.report import Delivery
from estafeta.ipc.messages import (
    DeliverReply,
    DeliverRequest,
    Enqueue,
    EnqueueReply,
    Envelope,
    Message,
    Place,
    Recipient,
    RecipientResult,
    Resolve,
    Rewrite,
    Rewritten,
    Route,
)
from estafeta.system.log import Log, Severity

CONTENT = b"Subject: x\r\n\r\nFrom me\r\nbye\r\n"
ME = pwd.getpwuid(os.getuid()).pw_name


class Lines:
    """A log sink."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def emit(self, severity: Severity, tag: str, text: str) -> None:
        self.lines.append(text)

    def flush(self) -> None:
        pass


class Peer:
    """cleanup, trivial-rewrite and other agents."""

    def __init__(self) -> None:
        self.submitted: list[Enqueue] = []
        self.handed: list[DeliverRequest] = []

    async def call(self, message: Message) -> Message:
        if isinstance(message, Rewrite):
            address = message.address
            return Rewritten(address if b"@" in address else address + b"@here")
        if isinstance(message, Resolve):
            here = message.address.endswith(b"@here")
            return Route("local" if here else "smtp", "here", message.address, 1)
        if isinstance(message, DeliverRequest):
            self.handed.append(message)
            return DeliverReply([RecipientResult(0, 1, "2.0.0", "by the other")])
        assert isinstance(message, Enqueue)
        self.submitted.append(message)
        return EnqueueReply(0, "NEW1")


class World:
    """One agent with its context; ``settings`` are lines of main.cf."""

    def __init__(self, tmp_path: Path, agent: type[Local | Virtual], settings: str) -> None:
        head = "myhostname = host.here\nmydestination = here\nrecipient_delimiter = +\n"
        (tmp_path / "main.cf").write_text(f"{head}{settings}\n")
        (tmp_path / "message").write_bytes(CONTENT)
        self.directory = tmp_path
        self.agent = agent
        self.sink = Lines()
        self.peer = Peer()

    def deliver(self, *addresses: bytes, content: bytes = CONTENT) -> list[tuple[int, str, str]]:
        """Outcome, status and text of each recipient."""
        (self.directory / "message").write_bytes(content)
        return asyncio.run(self._deliver([Recipient(address) for address in addresses], len(content)))

    async def _deliver(self, recipients: list[Recipient], size: int) -> list[tuple[int, str, str]]:
        world = self

        class FakeContext:
            config = load_config(str(world.directory))
            log = Log(world.sink, "postfix/agent", number=1)
            service = parse_master_cf("agent unix - n n - - local\n")[0]
            client_limit = 0
            queue_directory = str(world.directory)
            loop = asyncio.get_running_loop()

            def channel(self, name: str) -> Peer:
                return world.peer

            def next_number(self) -> int:
                return 0

        context: Any = FakeContext()
        agent = self.agent(context)
        agent.prepare()
        await agent.start()
        envelope = Envelope("Q1", 1.0, b"s@far", recipients)
        request = DeliverRequest(Place("message", 0, size, 0, size), envelope, "local", "here", 1.0, 1.0)
        delivery = Delivery(request, context.log, 0)
        try:
            await asyncio.wait_for(agent.deliver(delivery), 10)
        finally:
            await agent.stop()
        return [(item.outcome, item.dsn, item.reason) for item in delivery.reply.results]


def local(tmp_path: Path, aliases: str = "", settings: str = "") -> World:
    (tmp_path / "aliases").write_text(aliases)
    table = f"alias_maps = texthash:{tmp_path}/aliases\nmail_spool_directory = {tmp_path}/spool\nforward_path =\n"
    (tmp_path / "spool").mkdir()
    return World(tmp_path, Local, table + f"default_privs = {ME}\n" * (os.getuid() != 0) + settings)


def test_unknown_user(tmp_path: Path) -> None:
    assert local(tmp_path).deliver(b"No-Such@here") == [(3, "5.1.1", 'unknown user: "no-such"')]


def test_required_alias(tmp_path: Path) -> None:
    world = local(tmp_path)
    assert world.deliver(b"postmaster@here") == [(1, "2.0.0", "discarded")]
    assert "warning: required alias not found: postmaster" in world.sink.lines


def test_user_mailbox(tmp_path: Path) -> None:
    world = local(tmp_path)
    assert world.deliver(f"{ME}+ext@here".encode()) == [(1, "2.0.0", "delivered to mailbox")]
    text = (tmp_path / "spool" / ME).read_bytes()
    assert text.startswith(b"From s@far  ")
    assert f"\nReturn-Path: <s@far>\nX-Original-To: {ME}+ext@here\nDelivered-To: {ME}+ext@here\nSubject".encode() in text
    assert text.endswith(b"\n\n>From me\nbye\n\n")


def test_loop_by_delivered_to(tmp_path: Path) -> None:
    result = local(tmp_path).deliver(f"{ME}@here".encode(), content=f"Delivered-To: {ME}@here\r\n\r\n".encode())
    assert result == [(3, "5.4.6", f"mail forwarding loop for {ME}@here")]


def test_alias_loop_ends(tmp_path: Path) -> None:
    world = local(tmp_path, "a b\nb a\n")
    assert world.deliver(b"a@here") == [(3, "5.4.6", "alias database loop for b")]


def test_alias_that_lists_itself_is_the_user(tmp_path: Path) -> None:
    assert local(tmp_path, f"{ME} {ME}\n").deliver(f"{ME}@here".encode()) == [(1, "2.0.0", "delivered to mailbox")]


def test_one_copy_for_each(tmp_path: Path) -> None:
    world = local(tmp_path, f"a b, c, {ME}\nb {ME}, x@far\nc b, x@far\n")
    assert world.deliver(b"a@here")[0][0] == 1
    assert (tmp_path / "spool" / ME).read_bytes().count(b"From s@far") == 1
    assert [item.address for item in world.peer.submitted[0].envelope.recipients] == [b"x@far"]


def test_an_empty_include_is_discarded(tmp_path: Path) -> None:
    (tmp_path / "inc").write_text("# nobody\n")
    assert local(tmp_path, f"a :include:{tmp_path}/inc\n").deliver(b"a@here") == [(1, "2.0.0", "discarded")]


def test_a_name_in_the_way_of_an_expansion_never_loses_mail(tmp_path: Path) -> None:
    (tmp_path / "f").write_text(f"{ME}\n")
    # The user's own name in his .forward is his mailbox.
    world = local(tmp_path, "", f"forward_path = {tmp_path}/f")
    assert world.deliver(f"{ME}@here".encode()) == [(1, "2.0.0", "delivered to mailbox")]


def test_remote_addresses_are_one_new_message(tmp_path: Path) -> None:
    world = local(tmp_path, f"list x@far, y@far, {ME}\n")
    assert world.deliver(b"list@here")[0][0] == 1
    (new,) = world.peer.submitted
    assert [item.address for item in new.envelope.recipients] == [b"x@far", b"y@far"]
    assert {item.original for item in new.envelope.recipients} == {b"list@here"}
    assert new.envelope.sender == b"s@far"
    assert new.content == b"Delivered-To: list@here\r\n" + CONTENT
    assert any("status=sent (forwarded as NEW1)" in line for line in world.sink.lines)
    assert (tmp_path / "spool" / ME).exists()


def test_owner_alias_becomes_sender(tmp_path: Path) -> None:
    world = local(tmp_path, f"list x@far {ME}\nowner-list boss@far\n")
    world.deliver(b"list@here")
    (new,) = world.peer.submitted
    assert new.envelope.sender == b"owner-list@here"
    assert [item.address for item in new.envelope.recipients] == [b"x@far", f"{ME}@here".encode()]
    assert [item.original for item in new.envelope.recipients] == [b"", b""]


def test_expand_owner_alias(tmp_path: Path) -> None:
    world = local(tmp_path, "list x@far\nowner-list boss@far\n", "expand_owner_alias = yes")
    world.deliver(b"list@here")
    assert world.peer.submitted[0].envelope.sender == b"boss@far"


def test_include_may_not_run_commands(tmp_path: Path) -> None:
    (tmp_path / "inc").write_text("# comment\nx@far\n|true\n")
    world = local(tmp_path, f"list :include:{tmp_path}/inc\n")
    assert world.deliver(b"list@here") == [(3, "5.7.1", "mail to command is restricted")]
    assert len(world.peer.submitted) == 1


def test_command_and_its_environment(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if os.access(parent, os.W_OK) and parent.stat().st_uid == os.getuid() and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o055)
    world = local(tmp_path, f'''cmd "|(echo $SENDER $LOCAL $EXTENSION $DOMAIN; cat) > {tmp_path}/out"\n''')
    assert world.deliver(b"cmd+e@here")[0][0] == 1
    assert (tmp_path / "out").read_bytes().startswith(b"s@far cmd+e e here\nFrom s@far  ")


def test_mailbox_transport_gets_everybody(tmp_path: Path) -> None:
    world = local(tmp_path, "", "mailbox_transport = lmtp:unix:x")
    assert world.deliver(b"nobody-here@here") == [(1, "2.0.0", "by the other")]
    (request,) = world.peer.handed
    assert (request.transport, request.nexthop) == ("lmtp", "unix:x")


def test_luser_relay(tmp_path: Path) -> None:
    world = local(tmp_path, "", "luser_relay = catch+$local@far")
    world.deliver(b"Lost@here")
    assert world.peer.submitted[0].envelope.recipients[0].address == b"catch+lost@far"


def virtual(tmp_path: Path, owner: str = "") -> World:
    uid, gid = os.getuid() or 50001, os.getgid() or 60001
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail").chmod(0o777)
    for parent in tmp_path.parents:
        if os.access(parent, os.W_OK) and parent.stat().st_uid == os.getuid() and len(parent.parts) > 2:
            parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    return World(
        tmp_path,
        Virtual,
        f"virtual_mailbox_base = {tmp_path}/mail\nvirtual_minimum_uid = 100\n"
        "virtual_mailbox_maps = inline:{ {a@v=a/} {box@v=box} {@any=any/} }\n"
        f"virtual_uid_maps = {owner or f'static:{uid}'}\nvirtual_gid_maps = static:{gid}\n",
    )


def test_virtual(tmp_path: Path) -> None:
    world = virtual(tmp_path)
    assert world.deliver(b"A+x@v", b"box@v", b"who@any", b"no@v") == [
        (1, "2.0.0", "delivered to maildir"),
        (1, "2.0.0", "delivered to mailbox"),
        (1, "2.0.0", "delivered to maildir"),
        (3, "5.1.1", 'unknown user: "no@v"'),
    ]
    (path,) = (tmp_path / "mail/a/new").iterdir()
    head = b"Return-Path: <s@far>\nX-Original-To: A+x@v\nDelivered-To: A+x@v\n"
    assert path.read_bytes() == head + CONTENT.replace(b"\r\n", b"\n")
    assert len(list((tmp_path / "mail/any/new").iterdir())) == 1


@pytest.mark.parametrize(
    ("owner", "warning"),
    [
        ("static:5", "bad uid 5 in virtual_uid_maps"),
        ("static:root", "bad uid root in virtual_uid_maps"),
        ("inline:{x=1}", "not found in virtual_uid_maps"),
    ],
)
def test_virtual_owner_trouble(tmp_path: Path, owner: str, warning: str) -> None:
    world = virtual(tmp_path, owner)
    assert world.deliver(b"a@v") == [(2, "4.3.5", "mail system configuration error")]
    assert f"warning: recipient a@v: {warning}" in world.sink.lines


def test_virtual_does_not_look_for_loops(tmp_path: Path) -> None:
    # As measured with Postfix 3.7; local(8) does.
    result = virtual(tmp_path).deliver(b"a@v", content=b"Delivered-To: a@v\r\n\r\nx\r\n")
    assert result == [(1, "2.0.0", "delivered to maildir")]


def test_a_lost_queue_file_is_temporary(tmp_path: Path) -> None:
    world = virtual(tmp_path)
    (tmp_path / "message").unlink()
    result = asyncio.run(world._deliver([Recipient(b"a@v"), Recipient(b"box@v")], 50))
    assert [(outcome, dsn[0]) for outcome, dsn, _ in result] == [(2, "4"), (2, "4")]

"""A configuration of 2002: fifo services, nqmgr, virtual_maps, sdbm tables, check_relay_domains. All work, each warns once."""

from __future__ import annotations

from support.instance import MASTER_CF, Client, Instance, wait_for

SETTINGS = """\
virtual_maps = sdbm:$config_directory/virtual
smtpd_recipient_restrictions = permit_mynetworks, reject_unknown_client, check_relay_domains
smtpd_client_restrictions = permit_mynetworks
"""


def test_old_names() -> None:
    master = MASTER_CF.replace("qmgr unix n - n 300 1 qmgr", "qmgr fifo n - n 300 1 nqmgr")
    master = master.replace("pickup unix", "pickup fifo")
    instance = Instance(SETTINGS, master)
    try:
        instance.write("virtual", "old@box.test joe@box.test\n")
        made = instance.command("postmap", f"sdbm:{instance.etc}/virtual")
        assert made.returncode == 0, made.stderr
        check = instance.command("postfix", "check")
        assert check.returncode == 0
        for old, new in (
            ("virtual_maps", "virtual_alias_maps"),
            ("check_relay_domains", "reject_unauth_destination"),
            ("reject_unknown_client", "reject_unknown_client_hostname"),
            ("nqmgr", "qmgr"),
            ("fifo", "unix"),
            ("sdbm:", "hash:"),
        ):
            lines = [line for line in check.stderr.splitlines() if f"{old} is an old form" in line.replace('"', "")]
            assert lines and all(new in line.partition("old form")[2] for line in lines), (old, check.stderr)
        instance.start()
        with Client(instance.port) as client:
            client.reply()
            client.ask(b"EHLO x")
            assert client.send(b"me@test.example", [b"old@box.test"], b"\r\nx").startswith(b"250 ")
        assert instance.command("sendmail", "-f", "me@box.test", "ann@box.test", input="\nhello\n").returncode == 0
        wait_for(lambda: instance.mailbox("joe") and instance.mailbox("ann"), what="mail by old names")
        assert instance.log().count("virtual_maps is an old form") == 1
        instance.stop()
    finally:
        instance.remove()

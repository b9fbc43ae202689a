"""Scripted SMTP conversations (tests/dialogs/*.smtp) with Debian's Postfix and with Estafeta: the same replies, the same log.

A script: ``=== name [listener] [outside]`` starts a conversation. Each line is sent with CRLF and its reply read, except
``| line`` (sent, no reply expected), ``> line`` (pipelined: sent at once with the next lines, replies read at the end of the
block), ``! bytes`` (sent without CRLF, no reply), ``<`` (read a reply). Python escapes work, and ``{text*N}`` repeats.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "support"))

import peers  # noqa: E402
from support.ports import free_port  # noqa: E402

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.xdist_group("peers"),
]

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
mydestination = here.test, localhost
mynetworks = 127.0.0.0/16
relay_domains = relay.test
virtual_alias_domains = alias.test
virtual_alias_maps = inline:{ { known@alias.test = user@here.test } }
virtual_mailbox_domains = box.test
virtual_mailbox_maps = inline:{ { user@box.test = user/ }, { "odd user"@box.test = odd/ } }
relay_recipient_maps = inline:{ { user@relay.test = x } }
local_recipient_maps = inline:{ { user = x }, { root = x } }
recipient_delimiter = +
alias_maps =
alias_database =
local_transport = discard:
virtual_transport = discard:
relay_transport = discard:
default_transport = discard:
smtpd_peername_lookup = no
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 100
smtpd_hard_error_limit = 100
smtpd_client_connection_count_limit = 0
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
disable_dns_lookups = yes
message_size_limit = 100000
fast_flush_domains = relay.test
notify_classes =
in_flow_delay = 0
"""

LISTENERS = {
    "normal": "",
    "errors": "-o smtpd_hard_error_limit=5 -o smtpd_junk_command_limit=3 -o smtpd_recipient_limit=4 "
    "-o smtpd_recipient_overshoot_limit=2 -o line_length_limit=512",
    "strict": "-o smtpd_helo_required=yes -o strict_rfc821_envelopes=yes -o disable_vrfy_command=yes "
    "-o smtputf8_enable=no -o smtpd_discard_ehlo_keywords=dsn,chunking",
    "policy": "-o smtpd_helo_restrictions=reject_invalid_helo_hostname,reject_non_fqdn_helo_hostname "
    "-o smtpd_sender_restrictions=reject_non_fqdn_sender,reject_unlisted_sender "
    "-o smtpd_recipient_restrictions=reject_non_fqdn_recipient,check_relay_domains "
    "-o smtpd_data_restrictions=reject_unauth_pipelining -o smtpd_relay_restrictions=",
    "early": "-o smtpd_delay_reject=no -o smtpd_client_restrictions=permit_mynetworks,reject "
    "-o smtpd_helo_restrictions=reject_invalid_helo_hostname -o show_user_unknown_table_name=no",
}

# Conversation -> why the replies differ. docs/differs.md has the same list for people.
_SMUGGLING = "only <CR><LF>.<CR><LF> ends a message; Postfix 3.7 also takes a bare <LF> around the dot (SMTP smuggling)"
DIFFERS: dict[str, str] = {
    "commands-vrfy-unclosed": "VRFY with an unclosed bracket is a syntax error, as with RCPT",
    "content-lf-dot-crlf": _SMUGGLING,
    "content-crlf-dot-lf": _SMUGGLING,
    "content-lf-dot-lf": _SMUGGLING,
}


@dataclass(frozen=True)
class Script:
    """One conversation."""

    name: str
    listener: str
    outside: bool
    steps: tuple[str, ...]
    number: int

    @property
    def source(self) -> str:
        """The client's address: one of its own, so that the log tells conversations apart."""
        return f"127.{1 if self.outside else 0}.{1 + self.number // 250}.{1 + self.number % 250}"


def scripts() -> list[Script]:
    """All of tests/dialogs."""
    found: list[Script] = []
    for path in sorted((ROOT / "dialogs").glob("*.smtp")):
        for block in re.split(r"^=== ", path.read_text(), flags=re.MULTILINE)[1:]:
            title, *steps = block.splitlines()
            words = title.split()
            listener = next((word for word in words[1:] if word in LISTENERS), "normal")
            kept = tuple(step for step in steps if step and not step.startswith("#"))
            found.append(Script(f"{path.stem}-{words[0]}", listener, "outside" in words, kept, len(found)))
    return found


SCRIPTS = scripts()


def unescaped(text: str) -> bytes:
    """Python escapes, then repetitions."""
    data = text.encode("utf-8").decode("latin-1").encode("latin-1").decode("unicode_escape").encode("latin-1")
    return re.sub(rb"\{(.+?)\*(\d+)\}", lambda m: m[1] * int(m[2]), data, flags=re.DOTALL)


def play(script: Script, port: int) -> list[str]:
    """Every reply of a conversation, each with what it answers."""
    talk = peers.Conversation(peers.connect("127.0.0.1", port, script.source))
    heard = ["(greeting) " + talk.reply()]
    block: list[str] = []

    def end_block() -> None:
        if block:
            talk.send(b"".join(unescaped(line) + b"\r\n" for line in block))
            heard.extend(f"{line[:60]} --> {talk.reply()}" for line in block)
            block.clear()

    for step in script.steps:
        if step.startswith("> "):
            block.append(step[2:])
            continue
        end_block()
        if step.startswith("| ") or step == "|":
            talk.send(unescaped(step[2:]) + b"\r\n")
        elif step.startswith("! "):
            talk.send(unescaped(step[2:]))
        elif step == "<":
            heard.append(f"< --> {talk.reply()}")
        else:
            heard.append(f"{step[:60]} --> {talk.ask(unescaped(step))}")
    end_block()
    if "EOF" not in heard[-1] and not heard[-1].endswith(("Bye\r\n", "TIMEOUT")):
        heard.append("(end) QUIT --> " + talk.ask(b"QUIT"))
    talk.close()
    return [peers.normal(line) for line in heard]


@pytest.fixture(scope="module")
def heard() -> Iterator[dict[str, dict[str, list[str]]]]:
    """System -> conversation -> replies; and the logs under ``log:`` names."""
    base = Path(tempfile.mkdtemp(prefix="replies-"))
    base.chmod(0o755)
    found: dict[str, dict[str, list[str]]] = {}
    systems = []
    try:
        for name in peers.NAMES:
            ports = {listener: free_port() for listener in LISTENERS}
            master = "".join(
                f"127.0.0.1:{ports[listener]} inet n - n - - smtpd {options}\n" for listener, options in LISTENERS.items()
            )
            system = peers.Peer(name, base / name, MAIN_CF, master)
            systems.append(system)
            system.start()
            found[name] = {script.name: play(script, ports[script.listener]) for script in SCRIPTS}
            system.wait_log("disconnect from", 20, len(SCRIPTS))
            found["log:" + name] = {script.name: _log_of(system.log(), script) for script in SCRIPTS}
        yield found
    finally:
        for system in systems:
            system.stop()
        shutil.rmtree(base, ignore_errors=True)


def _log_of(log: str, script: Script) -> list[str]:
    lines = [line.partition("]: ")[2] for line in log.splitlines() if f"[{script.source}]" in line and "/smtpd[" in line]
    return [peers.normal(line) for line in lines]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_replies(heard: dict[str, dict[str, list[str]]], script: Script) -> None:
    """Both systems say the same, reply by reply."""
    same = heard["estafeta"][script.name] == heard["postfix"][script.name]
    if script.name in DIFFERS:
        assert not same, "no longer different: take it out of DIFFERS and docs/differs.md"
        pytest.xfail(DIFFERS[script.name])
    assert heard["estafeta"][script.name] == heard["postfix"][script.name]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_log(heard: dict[str, dict[str, list[str]]], script: Script) -> None:
    """Both systems log the same about the client."""
    if script.name in DIFFERS:
        pytest.xfail(DIFFERS[script.name])
    assert heard["log:estafeta"][script.name] == heard["log:postfix"][script.name]


def test_enough_was_compared(heard: dict[str, dict[str, list[str]]]) -> None:
    """The scripts ran to their ends: no silence, and as many replies as they promise."""
    replies = [line for lines in heard["postfix"].values() for line in lines]
    assert len(replies) > 250
    assert not [line for line in replies if line.endswith("TIMEOUT")]

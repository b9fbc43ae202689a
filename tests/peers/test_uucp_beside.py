"""The tutorial's uucp entry with the real uux, beside Debian's Postfix: the same job in the UUCP spool."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import pytest

from support import peers
from support.ports import free_port

_MISSING = peers.missing() or (None if Path("/usr/bin/uux").exists() else "uucp is not installed")
pytestmark = [pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""), pytest.mark.xdist_group("peers")]

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
relay_domains = far.test
transport_maps = inline:{ { far.test = uucp:Far } }
alias_maps =
alias_database =
disable_dns_lookups = yes
in_flow_delay = 0
"""

UUCP = """\
nodename here
spool {spool}
pubdir {spool}/pub
logfile {spool}/Log
statfile {spool}/Stats
debugfile {spool}/Debug
sysfile {top}/sys
"""


def _jobs(name: str) -> dict[str, list[str]]:
    """Directory of the UUCP spool -> its files' contents."""
    top = Path(tempfile.mkdtemp(prefix=f"uucp-{name}-"))
    port = free_port()
    spool = top / "uucp"
    master = (
        f"127.0.0.1:{port} inet n - n - - smtpd\nuucp unix - n n - - pipe\n"
        f"  flags=Fqhu user=uucp argv=uux -I {top}/uucp.conf -r -n -z -a$sender - $nexthop!rmail ($recipient)\n"
    )
    peer = peers.Peer(name, top, MAIN_CF, master)
    (spool / "pub").mkdir(parents=True)
    shutil.chown(spool, "uucp")
    shutil.chown(spool / "pub", "uucp")
    (top / "uucp.conf").write_text(UUCP.replace("{spool}", str(spool)).replace("{top}", str(top)))
    (top / "sys").write_text("system far\n")
    try:
        peer.start()
        talk = peers.Conversation(peers.connect("127.0.0.1", port))
        content = b"From: a@x.test\r\nDate: x\r\nMessage-Id: <1@x.test>\r\nSubject: s\r\n\r\nFrom here\r\n.\r\n"
        replies = talk.message("Some One@x.test".replace(" ", "."), ["User.One@Far.test", "two@far.test"], content)
        assert "queued as" in replies[-2], replies
        peer.wait_log(r"relay=uucp.*status=sent \(delivered via uucp service\)", count=2)
        peer.flush_and_wait()
        found = {}
        for kind in ("C.", "D."):
            texts = [path.read_text("latin-1") for path in sorted((spool / "far" / kind).iterdir())]
            found[kind] = [
                re.sub(r"\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}", "CTIME", peers.normal(text)) for text in texts
            ]
        return found
    finally:
        peer.stop()
        shutil.rmtree(top, ignore_errors=True)


def test_the_same_job_for_uux() -> None:
    theirs, ours = (_jobs(name) for name in peers.NAMES)
    assert ours == theirs
    assert "rmail user.one@far.test two@far.test" in " ".join(ours["C."])
    assert ours["D."][0].startswith("From Some.One@x.test ")

"""The tutorial's chapter 6.1 beside Debian's Postfix: its two scripts, with the real ripmime, ClamAV and SpamAssassin.

Both placements: ``smtpd -o content_filter=`` and main.cf with ``pickup -o content_filter=``. Only paths in the scripts are ours; ``sweep``
is a wrapper around clamscan with a data base of one signature. Postfix runs in a mount namespace where /etc/postfix is its
configuration, since its sendmail takes no other from a user that is not root.
"""

from __future__ import annotations

import base64
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import peers
from support.ports import free_ports

_PROGRAMS = ("/usr/bin/ripmime", "/usr/bin/clamscan", "/usr/sbin/spamd", "/usr/bin/spamc", "/usr/bin/unshare")
_MISSING = peers.missing() or next((f"{name} is not there" for name in _PROGRAMS if not Path(name).exists()), None)
pytestmark = [pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""), pytest.mark.xdist_group("peers")]

EICAR = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS" + b"-TEST-FILE!$H+H*"
GTUBE = b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD" + b"-ANTI-UBE-TEST-EMAIL*C.34X"

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
virtual_mailbox_domains = box.test
virtual_mailbox_maps = regexp:{etc}/mailboxes
virtual_mailbox_base = {mail}
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
alias_maps =
alias_database =
disable_dns_lookups = yes
in_flow_delay = 0
minimal_backoff_time = 1000s
maximal_backoff_time = 4000s
"""

AT_SMTPD = """\
127.0.0.1:{virus} inet n - n - - smtpd -o content_filter=filtro:
127.0.0.1:{spam} inet n - n - - smtpd -o content_filter=antispam:
127.0.0.1:{later} inet n - n - - smtpd -o content_filter=later:
127.0.0.1:{gone} inet n - n - - smtpd -o content_filter=gone:
filtro unix - n n - - pipe
  flags=Rq user=nobody argv={top}/filtro -f ${sender} -- ${recipient}
antispam unix - n n - - pipe
  flags=Rq user=nobody argv={top}/antispam -f ${sender} -- ${recipient}
later unix - n n - - pipe
  flags=Rq user=nobody argv={top}/later -f ${sender} -- ${recipient}
gone unix - n n - - pipe
  flags=Rq user=nobody argv={top}/no-such-filter -f ${sender} -- ${recipient}
"""

# The second placement: main.cf has content_filter, pickup takes it back.
IN_MAIN_CF = """\
127.0.0.1:{virus} inet n - n - - smtpd
127.0.0.1:{spam} inet n - n - - smtpd -o smtpd_helo_required=yes
filtro unix - n n - - pipe
  flags=Rq user=nobody argv={top}/filtro -f ${sender} -- ${recipient}
"""

FILTRO = """\
#!/bin/sh

# Definiciones
INSPECT_DIR={top}/inspect
SENDMAIL="{top}/sendmail -i"

# Codigos de retorno <syssexits.h>
EX_TEMPFAIL=75
EX_UNAVAILABLE=69

# Comienzo del proceso
cd $INSPECT_DIR || { echo "\\n $INSPECT_DIR no existe"; exit $EX_TEMPFAIL; }

# Borra los ficheros cuando termine el proceso
trap "rm -fr in.$$ tmp" 0 1 2 3 15

# Guarda el mensaje en un fichero
cat >in.$$ || { echo "\\n No se puede salvar el mensaje en un fichero"; exit $EX_TEMPFAIL; }

# Descompone el mensaje en sus componentes
/usr/bin/ripmime -i in.$$ -d $INSPECT_DIR/tmp

# Analiza la presencia de virus
{top}/sweep -ss $INSPECT_DIR/tmp/* || { echo "\\n Mensaje rechazado por contener virus"; exit $EX_UNAVAILABLE; }

# Si todo bien, se encamina el mensaje
$SENDMAIL "$@" <in.$$

exit $?
"""

ANTISPAM = """\
#!/bin/bash
/usr/bin/spamc -x -d 127.0.0.1 -p {spamd} | {top}/sendmail -i "$@"
exit $?
"""

SWEEP = """\
#!/bin/sh
shift
exec /usr/bin/clamscan --no-summary --quiet -d {top}/eicar.ndb "$@" >/dev/null
"""

SENDMAIL = {
    "postfix": '#!/bin/sh\nunset MAIL_CONFIG\nexec /usr/sbin/sendmail "$@"\n',
    "estafeta": '#!/bin/sh\nexport MAIL_CONFIG={top}/etc PYTHONPATH={src}\nexec {python} -m estafeta.commands.sendmail "$@"\n',
}


def python_for_all() -> str:
    """An interpreter that any user may run: a filter hands mail back as nobody."""
    for program in (sys.executable, "/usr/bin/python3"):
        test = 'exec "$0" -c "import sys; sys.exit(sys.version_info < (3, 11))"'
        check = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", test, program]
        if Path(program).exists() and subprocess.run(check, cwd="/", capture_output=True, timeout=20, check=False).returncode == 0:
            return program
    pytest.skip("no interpreter that nobody may run")


def mail(subject: str, body: bytes = b"nothing to see", attachment: bytes = b"") -> bytes:
    """A message, with an attachment if there is one."""
    head = f"From: a@box.test\r\nTo: {subject}@box.test\r\nSubject: {subject}\r\n".encode()
    if not attachment:
        return head + b"\r\n" + body + b"\r\n.\r\n..two\r\n"
    return (
        head + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="=b"\r\n\r\n--=b\r\n\r\n' + body
        + b'\r\n--=b\r\nContent-Type: application/octet-stream; name="x.com"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + base64.b64encode(attachment) + b"\r\n--=b--\r\n"
    )  # fmt: skip


class System:
    """One of the two, in one placement."""

    def __init__(self, name: str, services: str, more: str, spamd: int) -> None:
        self.top = Path(tempfile.mkdtemp(prefix=f"filters-{name}-"))
        self.ports = dict(zip(("virus", "spam", "later", "gone"), free_ports(4), strict=True))
        values = {"mail": self.top / "mail", **self.ports}
        etc = self.top / "etc"
        prefix = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /etc/postfix && exec "$@"', str(etc)]
        users = ["a", "clean", "dots", "virus", "ham", "spam", "later", "gone", "one", "two", "three", "bad"]
        mailboxes = "".join(f"/^{user}@box\\.test$/ {user}/\n" for user in users)
        self.peer = peers.Peer(
            name, self.top, MAIN_CF + more, services, values=values, files={"mailboxes": mailboxes},
            prefix=prefix if name == "postfix" else (),
        )  # fmt: skip
        if name == "postfix":  # what its start looks for in its own configuration directory
            for path in Path("/etc/postfix").iterdir():
                if path.is_file() and not (etc / path.name).exists():
                    shutil.copy(path, etc)
        if more:
            master = self.peer.etc / "master.cf"
            master.write_text(master.read_text().replace("1 pickup\n", "1 pickup\n  -o content_filter=\n"))
        src = Path(__file__).parents[2] / "src"
        known = {"top": self.top, "spamd": spamd, "python": python_for_all() if name == "estafeta" else "", "src": src}
        scripts = {"filtro": FILTRO, "antispam": ANTISPAM, "sweep": SWEEP, "sendmail": SENDMAIL[name],
                   "later": "#!/bin/sh\ncat >/dev/null\necho busy\nexit 75\n"}  # fmt: skip
        for script, text in scripts.items():
            path = self.top / script
            path.write_text(re.sub(r"\{(\w+)\}", lambda m: str(known[m[1]]), text))
            path.chmod(0o755)
        (self.top / "eicar.ndb").write_text(f"Eicar-Test:0:*:{EICAR.hex()}\n")
        (self.top / "inspect").mkdir()
        shutil.chown(self.top / "inspect", "nobody")

    def send(self, port: str, recipient: str, content: bytes) -> None:
        talk = peers.Conversation(peers.connect("127.0.0.1", self.ports[port]))
        replies = talk.message("a@box.test", [f"{recipient}@box.test"], content)
        assert "queued as" in replies[-2], replies

    def box(self, user: str) -> list[str]:
        return [path.read_text("latin-1") for path in sorted((self.top / "mail" / user / "new").glob("*"))]

    def wait_box(self, user: str, count: int = 1) -> list[str]:
        peers.wait_until(lambda: len(self.box(user)) >= count, 8, f"{user}: {self.peer.log()[-3000:]}")
        return self.box(user)

    def fate(self, recipient: str) -> list[str]:
        """What the log says of a recipient: agent, relay, status, and the words behind."""
        found = []
        for line in self.peer.log().splitlines():
            match = re.search(rf"/(pipe|virtual)\[\d+\]: \w+: to=<{recipient}@box.test>, (relay=\w+).*?(dsn=\S+, status=.*)", line)
            if match:
                found.append(" ".join(match.groups()).replace(str(self.top), "TOP"))
        return found

    def close(self) -> None:
        self.peer.stop()
        shutil.rmtree(self.top, ignore_errors=True)


@pytest.fixture(scope="module")
def spamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """SpamAssassin's daemon with one rule, no network."""
    top = tmp_path_factory.mktemp("spamd")
    for directory in ("site", "rules"):
        (top / directory).mkdir()
    (top / "site" / "init.pre").write_text("loadplugin Mail::SpamAssassin::Plugin::Check\n")
    gtube = re.escape(GTUBE.decode()).replace("/", r"\/").replace(r"\-", "-")
    (top / "rules" / "10.cf").write_text(
        f'body GTUBE /{gtube}/\nscore GTUBE 1000\nreport_safe 0\nadd_header all Status "_YESNO_, score=_SCORE_"\nadd_header spam Flag _YESNOCAPS_\n'
    )
    for directory in (top, *top.parents[:3], top / "site", top / "rules"):
        directory.chmod(directory.stat().st_mode | 0o055)
    (port,) = free_ports(1)
    with (top / "log").open("wb") as log:
        process = subprocess.Popen(
            ["spamd", "-L", "-x", "-m", "1", "-i", "127.0.0.1", "-p", str(port), "-u", "nobody", f"--siteconfigpath={top}/site",
             f"--configpath={top}/rules", "-s", "stderr"], stdout=log, stderr=log)  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (top / "log").read_text()
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="module", params=peers.NAMES)
def at_smtpd(request: pytest.FixtureRequest, spamd: int) -> Iterator[System]:
    system = System(request.param, AT_SMTPD, "", spamd)
    try:
        system.peer.start()
        yield system
    finally:
        system.close()


def test_clean_mail_goes_through_the_virus_filter(at_smtpd: System) -> None:
    at_smtpd.send("virus", "clean", mail("clean", attachment=b"harmless"))
    [text] = at_smtpd.wait_box("clean")
    assert "Subject: clean" in text and base64.b64encode(b"harmless").decode() in text
    received = re.findall(r"^Received: .*", text, re.MULTILINE)
    assert len(received) == 2, "once by SMTP, once by pickup"
    assert f"(Postfix, from userid {(at_smtpd.top / 'inspect').stat().st_uid})" in text
    at_smtpd.peer.wait_log(r"to=<clean@box.test>.*delivered via filtro service")
    assert sorted(at_smtpd.fate("clean")) == [
        "pipe relay=filtro dsn=2.0.0, status=sent (delivered via filtro service)",
        "virtual relay=virtual dsn=2.0.0, status=sent (delivered to maildir)",
    ]
    assert list((at_smtpd.top / "inspect").iterdir()) == []


def test_dots_survive(at_smtpd: System) -> None:
    at_smtpd.send("virus", "dots", mail("dots"))
    [text] = at_smtpd.wait_box("dots")
    assert text.endswith("\n\nnothing to see\n.\n..two\n")


def test_a_virus_bounces_with_the_words_of_the_script(at_smtpd: System) -> None:
    before = len(at_smtpd.box("a"))
    at_smtpd.send("virus", "virus", mail("virus", attachment=EICAR))
    notices = at_smtpd.wait_box("a", before + 1)
    [notice] = [text for text in notices if "Final-Recipient: rfc822; virus@box.test" in text]
    assert "Mensaje rechazado por contener virus" in notice
    assert re.search(r"^Status: 5\.3\.0", notice, re.MULTILINE)
    [fate] = at_smtpd.fate("virus")
    assert fate.startswith("pipe relay=filtro dsn=5.3.0, status=bounced (service unavailable. Command output: ")
    assert at_smtpd.box("virus") == []


def test_spam_is_tagged_and_the_rest_is_marked(at_smtpd: System) -> None:
    at_smtpd.send("spam", "ham", mail("ham"))
    at_smtpd.send("spam", "spam", mail("spam", GTUBE))
    [ham] = at_smtpd.wait_box("ham")
    [spam] = at_smtpd.wait_box("spam")
    assert re.search(r"^X-Spam-Status: No, score=", ham, re.MULTILINE)
    assert "X-Spam-Flag" not in ham
    assert re.search(r"^X-Spam-Flag: YES", spam, re.MULTILINE)
    assert re.search(r"^X-Spam-Status: Yes, score=1000", spam, re.MULTILINE)


def test_a_filter_that_cannot_now_defers(at_smtpd: System) -> None:
    at_smtpd.send("later", "later", mail("later"))
    at_smtpd.send("gone", "gone", mail("gone"))
    at_smtpd.peer.wait_log(r"to=<later@box.test>.*status=", count=1)
    at_smtpd.peer.wait_log(r"to=<gone@box.test>.*status=", count=1)
    assert at_smtpd.fate("later") == ["pipe relay=later dsn=4.3.0, status=deferred (temporary failure. Command output: busy )"]
    [fate] = at_smtpd.fate("gone")
    assert fate.startswith("pipe relay=gone dsn=4.3.5, status=deferred") or "status=deferred" in fate, fate
    assert at_smtpd.box("later") == at_smtpd.box("gone") == []


@pytest.mark.parametrize("name", peers.NAMES)
def test_the_filter_of_main_cf(name: str, spamd: int) -> None:
    """Both ports are filtered, mail from sendmail is not, and nothing goes round."""
    system = System(name, IN_MAIN_CF, "content_filter = filtro:\n", spamd)
    try:
        system.peer.start()
        system.send("virus", "one", mail("one"))
        system.wait_box("one")
        system.send("spam", "two", mail("two"))
        system.wait_box("two")
        result = system.peer.command("sendmail", "-f", "a@box.test", "three@box.test", input_bytes=b"Subject: three\n\nx\n")
        assert result.returncode == 0, result.stderr
        system.wait_box("three")
        system.send("virus", "bad", mail("bad", attachment=EICAR))
        [notice] = system.wait_box("a")
        assert "Mensaje rechazado por contener virus" in notice
        system.peer.flush_and_wait()
        assert [len(system.fate(who)) for who in ("one", "two", "three", "bad")] == [2, 2, 1, 1]
        assert len(re.findall(r"/pickup\[\d+\]: \w+: uid=", system.peer.log())) == 3
    finally:
        system.close()

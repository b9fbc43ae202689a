"""Table look-ups to the letter, beside Debian's Postfix: transport(5), virtual(5), canonical(5), relocated(5), access(5), aliases(5).

Partial keys, extensions, parent domains, ``$1``, null senders. For each recipient the replies, the queue's view of the message and
every delivery line must be the same.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import peers
from support.instance import free_port

pytestmark = [
    pytest.mark.skipif(peers.missing() is not None, reason=peers.missing() or ""),
    pytest.mark.xdist_group("peers"),
    pytest.mark.timeout(240),
]

MAIN_CF = """\
myhostname = mail.here.test
mydomain = here.test
myorigin = here.test
mydestination = here.test, local.test
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
smtpd_peername_lookup = no
smtpd_authorized_xclient_hosts = 127.0.0.0/8
relay_domains = static:all
relay_transport = discard:
default_transport = discard:
disable_dns_lookups = yes
recipient_delimiter = +
local_recipient_maps =
alias_maps = hash:{etc}/aliases, regexp:{etc}/aliases_re
alias_database =
transport_maps = hash:{etc}/transport, regexp:{etc}/transport_re
virtual_alias_maps = hash:{etc}/virtual, regexp:{etc}/virtual_re
virtual_alias_domains = valias.test
canonical_maps = hash:{etc}/canonical
sender_canonical_maps = hash:{etc}/sender_canonical
recipient_canonical_maps = regexp:{etc}/canonical_re
relocated_maps = hash:{etc}/relocated
luser_relay = $user.luser@discard.test
allow_percent_hack = no
swap_bangpath = no
maximal_backoff_time = 4000s
local_delivery_slot_cost = 5
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions =
"""
MASTER_CF = """\
{port} inet n - n - - smtpd
{access} inet n - n - - smtpd -o { smtpd_recipient_restrictions = check_recipient_access hash:{etc}/access, check_sender_access hash:{etc}/saccess, check_client_access hash:{etc}/caccess, check_helo_access hash:{etc}/haccess }
{nosub} inet n - n - - smtpd -o { parent_domain_matches_subdomains = } -o { smtpd_recipient_restrictions = check_recipient_access hash:{etc}/access, check_sender_access hash:{etc}/saccess, check_client_access hash:{etc}/caccess, check_helo_access hash:{etc}/haccess }
{order} inet n - n - - smtpd -o { smtpd_relay_restrictions = check_recipient_access static:{550 relay list}, reject } -o { smtpd_recipient_restrictions = check_recipient_access static:{550 recipient list} } -o smtpd_relay_before_recipient_restrictions=no
{order2} inet n - n - - smtpd -o { smtpd_relay_restrictions = check_recipient_access static:{550 relay list}, reject } -o { smtpd_recipient_restrictions = check_recipient_access static:{550 recipient list} } -o smtpd_relay_before_recipient_restrictions=yes
"""
TABLES = {
    "transport": """\
user@t.test             retry:4.0.0 the address
user+ext@t.test         retry:4.0.0 address and extension
+only@t.test            retry:4.0.0 only an extension
t.test                  retry:4.0.0 the domain
.t.test                 retry:4.0.0 below the domain
deep.sub.t.test         retry:4.0.0 deep itself
dotonly.test            retry:4.0.0 no dot here
.dotted.test            retry:4.0.0 only below
@atkey.test             retry:4.0.0 never
bare.test               retry:
colon.test              :elsewhere.test
empty.test              :
double.test             discard::weird
[10.1.2.3]              retry:4.0.0 literal
UPPER.test              retry:4.0.0 folded
local.test              local:
user@here.test          retry:4.0.0 local user
error.test              error:5.1.3 mail is not accepted here
plainerror.test         error:no status
emptyerror.test         error:
fivetry.test            retry:5.2.2 full
fourerror.test          error:4.2.2 full
""",
    "transport_re": "/^(.*)@re\\.test$/ retry:4.0.0 pattern\n/^re-domain\\.test$/ retry:4.0.0 never asked\n",
    "virtual": """\
one@v.test              final@discard.test
ext@v.test              final@discard.test
ext+known@v.test        known@discard.test
nodom@v.test            final
@wild.test              all@discard.test
@other.test             @discard.test
kept@wild.test          kept@wild.test
many@v.test             a@discard.test, b@discard.test c@discard.test
chain@v.test            one@v.test, chain2@v.test
chain2@v.test           end@discard.test
loop@v.test             loop@v.test, two@discard.test
ping@v.test             pong@v.test
pong@v.test             ping@v.test
bareuser                bareuser@discard.test
bareext+x               special@discard.test
bareext                 general@discard.test
valias.test             anything
known@valias.test       known@discard.test
"quo ted"@v.test        quoted@discard.test
tagged@v.test           tag+set@discard.test
UPPER@v.test            upper@discard.test
postmaster@v.test       pm@discard.test
@v.sub.test             catch@discard.test
""",
    "virtual_re": "/^re-([a-z]+)(\\+.*)?@v\\.test$/ $1.found@discard.test\n/^twice-(.*)@v\\.test$/ $1@discard.test, $1@other.test\n",
    "canonical": """\
c@c.test                mapped@discard.test
ext@c.test              mapped@discard.test
ext+known@c.test        known@discard.test
barec                   barec@discard.test
@cwild.test             everybody@discard.test
@csame.test             @discard.test
twice@c.test            c@c.test
csender@c.test          changed@c.test
nodom@c.test            plain
cping@c.test            cpong@c.test
cpong@c.test            cping@c.test
many@c.test             x@discard.test, y@discard.test
""",
    "sender_canonical": "s@s.test  mapped@s.test\n@swild.test one@s.test\ncsender@c.test first@c.test\nbares bares@s.test\n",
    "canonical_re": "/^cre-(.*)@c\\.test$/ ${1}@discard.test\n",
    "relocated": """\
gone@r.test             new@elsewhere.test
gone+ext@r.test         extended@elsewhere.test
@rdomain.test           other.example
barer                   barer@elsewhere.test
long@r.test             +34 555 1234 or ask
gone@here.test          new@elsewhere.test
gone@valias.test        moved@elsewhere.test
""",
    "aliases": """\
al: final@discard.test
alext+x: special@discard.test
alext: general@discard.test
many: a@discard.test, b@discard.test
two: al, "al"
local: nobodyhere
list: x@discard.test
owner-list: boss@discard.test
Upper: upper@discard.test
nested: al, many
included: :include:{etc}/members
null: /dev/null
errored: error@error.test
defering: u@t.test
looper: looper@local.test
withext: target+more@discard.test
quoted: "odd user"@discard.test
postmaster: pm@discard.test
""",
    "aliases_re": "/^re-al$/ fromre@discard.test\n",
    "members": "m1@discard.test\nm2@discard.test, m3@discard.test\n# comment\n",
    "access": """\
user@a.test             550 address
user+ext@a.test         550 address with extension
a.test                  550 domain
.a.test                 550 below
par.test                550 parent
.dot.test               550 dot parent
anyone@                 550 local part
exact@par.test          OK
sub.par.test            OK
sub.dot.test            OK
<>                      550 null
onlyext+x@              550 local part with extension
""",
    "saccess": "user@a.test 550 s address\na.test 550 s domain\npar.test 550 s parent\n.dot.test 550 s dot\nanyone@ 550 s local\n<> 550 s null\n",
    "caccess": "10.1.1.1 550 host\n10.2 550 net two\n10.3.3 550 net three\n10.4.4.4 OK\n2001:db8:1::1 550 v6 host\n2001:db8:2 550 v6 net\nclient.test 550 name\n.dotclient.test 550 below name\n",
    "haccess": "helo.test 550 helo\n.dothelo.test 550 below helo\n[10.9.9.9] 550 literal\n10.8.8 550 helo net\n",
}
_TRANSPORT = """user@t.test user+ext@t.test user+other@t.test +only@t.test x+only@t.test other@t.test a@sub.t.test a@deep.sub.t.test
  a@x.deep.sub.t.test a@dotonly.test a@sub.dotonly.test a@dotted.test a@x.dotted.test a@y.x.dotted.test a@atkey.test a@bare.test
  a@colon.test a@empty.test a@double.test a@[10.1.2.3] a@[10.1.2.4] a@Upper.TEST a@UPPER.test USER@T.test user@here.test a@error.test
  a@plainerror.test a@emptyerror.test a@fivetry.test a@fourerror.test a@re.test a@re-domain.test a@none.test"""
_VIRTUAL = """one@v.test one+e@v.test ext@v.test ext+known@v.test ext+other@v.test nodom@v.test any@wild.test any+e@wild.test any@other.test
  any+e@other.test kept@wild.test kept+e@wild.test many@v.test many+e@v.test chain@v.test chain+e@v.test loop@v.test loop+e@v.test ping@v.test
  bareuser@here.test bareuser@local.test bareuser@far.test bareuser+e@here.test bareext+x@here.test bareext+y@local.test bareuser
  known@valias.test unknown@valias.test "quo\\ ted"@v.test "quo\x20ted"@v.test tagged@v.test tagged+e@v.test upper@V.test Upper@v.test
  re-abc@v.test re-abc+x@v.test twice-q@v.test postmaster@v.test postmaster a@v.sub.test a@x.v.sub.test nothere@v.test"""
_CANONICAL = """c@c.test c+e@c.test ext+known@c.test ext+other@c.test barec@here.test barec+e@local.test barec@far.test x@cwild.test x+e@cwild.test
  x@csame.test x+e@csame.test twice@c.test nodom@c.test nodom+e@c.test many@c.test cping@c.test cre-z@c.test cre-z+e@c.test C@C.test"""
_RELOCATED = """gone@r.test gone+ext@r.test gone+other@r.test stay@r.test a@rdomain.test a+e@rdomain.test barer@here.test barer+e@local.test
  barer@far.test long@r.test gone@here.test gone@valias.test"""
_ALIASES = """al@here.test al+e@here.test alext+x@local.test alext+y@here.test many@here.test many+e@here.test two@here.test local@here.test
  list@here.test Upper@here.test uPPer@local.test nested@here.test included@here.test included+e@here.test null@here.test errored@here.test
  defering@here.test looper@local.test withext@here.test withext+e@here.test quoted@here.test re-al@here.test re-al+x@here.test
  nobody-such@here.test nobody-such+e@local.test postmaster@local.test AL@here.test"""
_ACCESS = """user@a.test user+ext@a.test user+other@a.test other@a.test x@sub.a.test x@par.test x@sub.par.test x@y.sub.par.test x@z.par.test
  exact@par.test exact+e@par.test x@dot.test x@sub.dot.test x@z.dot.test anyone@far.test anyone+e@far.test onlyext+x@far.test onlyext@far.test
  Anyone@FAR.test free@far.test postmaster@par.test"""
_SENDERS = """user@a.test user+e@a.test other@a.test x@sub.a.test x@par.test x@sub.par.test x@dot.test x@sub.dot.test anyone@far.test <> free@far.test"""
_ENVELOPE_SENDERS = """s@s.test s+e@s.test any@swild.test csender@c.test bares@here.test bares bares@far.test c@c.test c+e@c.test ext+known@c.test
  barec@local.test x@csame.test <> "odd user"@swild.test S@S.test"""
_CLIENTS = "10.1.1.1 10.1.1.2 10.2.9.9 10.20.1.1 10.3.3.3 10.3.4.3 10.4.4.4 IPV6:2001:db8:1::1 IPV6:2001:db8:2::5 IPV6:2001:db8:3::5"
_NAMES = "client.test sub.client.test dotclient.test sub.dotclient.test a.sub.dotclient.test other.test"
_HELOS = "helo.test sub.helo.test dothelo.test sub.dothelo.test [10.9.9.9] [10.8.8.8] 10.8.8.8 HELO.Test free.test"


def _cases() -> list[tuple[str, str, str, str, str, str]]:
    """(name, listener, sender, recipient, XCLIENT words, HELO)."""
    found = []

    def words(text: str) -> list[str]:
        return [word.replace("quo\x20ted", "quo ted") for word in re.findall(r'"[^"]*"\S*|\S+', text)]

    for group, text in (("t", _TRANSPORT), ("v", _VIRTUAL), ("c", _CANONICAL), ("r", _RELOCATED), ("al", _ALIASES)):
        found += [(f"{group}:{word}", "port", "from@discard.test", word, "", "x") for word in words(text)]
    found += [(f"s:{word}", "port", word, "final@discard.test", "", "x") for word in words(_ENVELOPE_SENDERS)]
    for listener in ("access", "nosub"):
        found += [(f"{listener}:{word}", listener, "free@far.test", word, "", "x") for word in words(_ACCESS)]
        found += [(f"{listener}:from:{word}", listener, word, "free@far.test", "", "x") for word in words(_SENDERS)]
        found += [(f"{listener}:client:{word}", listener, "free@far.test", "free@far.test", f"ADDR={word}", "x") for word in words(_CLIENTS)]
        found += [(f"{listener}:name:{word}", listener, "free@far.test", "free@far.test", f"NAME={word}", "x") for word in words(_NAMES)]
        found += [(f"{listener}:helo:{word}", listener, "free@far.test", "free@far.test", "", word) for word in words(_HELOS)]
    found += [(listener, listener, "free@far.test", "free@far.test", "", "x") for listener in ("order", "order2")]
    return found


CASES = _cases()


def _talk(port: int, number: int, sender: str, recipient: str, xclient: str, helo: str) -> list[str]:
    conversation = peers.Conversation(peers.connect("127.0.0.1", port))
    conversation.reply()
    if xclient:
        conversation.ask(f"XCLIENT {xclient}".encode())
    conversation.ask(b"EHLO " + helo.encode())
    replies = [conversation.ask(f"MAIL FROM:<{sender.strip('<>')}>".encode()), conversation.ask(f"RCPT TO:<{recipient}>".encode())]
    if replies[-1].startswith("250"):
        conversation.ask(b"DATA")
        conversation.send(b"Message-Id: <case%d@x.test>\r\nFrom: x@x.test\r\nDate: x\r\n\r\nb\r\n" % number)
        replies.append(conversation.ask(b"."))
    conversation.close()
    return [peers.normal(reply) for reply in replies]


def _deliveries(log: str, number: int) -> tuple[list[str], bool]:
    """The lines about a case's messages, and whether every recipient has one."""
    found: list[str] = []
    complete = True
    for queue_id in re.findall(rf": (\w+): message-id=<case{number}@x\.test>", log):
        active = re.search(rf": {queue_id}: from=<(.*)>, size=\d+, nrcpt=(\d+) \(queue active\)", log)
        lines = re.findall(rf": {queue_id}: (to=.*)", log)
        complete &= active is not None and len(lines) >= int(active[2])
        found += [active[1], active[2]] if active else []
        found += [re.sub(r"delay=.*?, dsn=", "dsn=", line) for line in lines]
    return sorted(peers.normal(re.sub(r"forwarded as \w+", "forwarded", line)) for line in found), complete


@pytest.fixture(scope="module")
def heard() -> Iterator[dict[str, dict[str, tuple[list[str], list[str]]]]]:
    top = Path(tempfile.mkdtemp(prefix="lookups-"))
    found: dict[str, dict[str, tuple[list[str], list[str]]]] = {}
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, top, True)
        for name in peers.NAMES:
            ports = {key: free_port() for key in ("port", "access", "nosub", "order", "order2")}
            peer = peers.Peer(name, top / name, MAIN_CF, MASTER_CF, files=TABLES, values=ports)
            for table in TABLES:
                if table.endswith("_re") or table == "members":
                    continue
                program = "postalias" if table == "aliases" else "postmap"
                result = peer.command(program, f"hash:{peer.etc}/{table}")
                assert result.returncode == 0, result.stderr
            peer.start()
            stack.callback(peer.stop)
            replies = {
                case[0]: _talk(ports[case[1]], number, *case[2:]) for number, case in enumerate(CASES)
            }
            accepted = [number for number, case in enumerate(CASES) if len(replies[case[0]]) > 2]
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and not all(_deliveries(peer.log(), number)[1] for number in accepted):
                time.sleep(0.2)
            log = peer.log()
            found[name] = {case[0]: (replies[case[0]], _deliveries(log, number)[0]) for number, case in enumerate(CASES)}
        yield found


@pytest.mark.parametrize("case", [case[0] for case in CASES])
def test_the_same_answer(heard: dict[str, dict[str, tuple[list[str], list[str]]]], case: str) -> None:
    assert heard["estafeta"][case] == heard["postfix"][case]
    assert heard["postfix"][case][1] or not heard["postfix"][case][0][-1].startswith("250")

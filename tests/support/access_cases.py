"""What test_access_beside.py asks of both systems: listeners with their restrictions, and the conversations there."""

from __future__ import annotations

from dataclasses import dataclass

CLIENT = "10.5.1.10"  # has a name that leads back
ZONES: dict[str, object] = {
    "10.1.5.10.in-addr.arpa": {"PTR": ["good.client.test"]},
    "good.client.test": {"A": ["10.5.1.10"]},
    "11.1.5.10.in-addr.arpa": {"PTR": ["forged.client.test"]},
    "forged.client.test": {"A": ["10.5.1.99"]},
    "13.1.5.10.in-addr.arpa": {"PTR": ["nowhere.client.test"]},
    "14.1.5.10.in-addr.arpa": "SERVFAIL",
    "here.test": {"A": ["10.5.1.1"]},
    "good.test": {"MX": ["10 mx.good.test"], "NS": ["ns.good.test"]},
    "mx.good.test": {"A": ["10.6.0.1"]},
    "ns.good.test": {"A": ["10.7.0.1"]},
    "plain.test": {"A": ["10.6.0.2"]},
    "nullmx.test": {"MX": ["0 ."]},
    "fail.test": "SERVFAIL",
    "nodata.test": {"TXT": ["x"]},
    "10.1.5.10.rbl.test": {"A": ["127.0.0.2", "127.0.0.9"], "TXT": ['"listed $client_name for reasons"']},
    "10.1.5.10.white.test": {"A": ["127.0.1.3"]},
    "10.1.5.10.broken.test": "SERVFAIL",
    "good.client.test.rhsbl.test": {"A": ["127.0.0.4"]},
    "good.test.rhsbl.test": {"A": ["127.0.0.4"], "TXT": ['"bad domain"']},
    "helo.test.rhsbl.test": {"A": ["127.0.0.5"]},
    "backup.test": {"MX": ["10 mx.good.test", "20 me.test"]},
    "primary.test": {"MX": ["10 me.test"]},
    "me.test": {"A": ["10.5.1.1"]},
    "box.test": {"A": ["10.5.1.1"]},
}  # fmt: skip


@dataclass(frozen=True)
class Talk:
    """One conversation on a listener: every reply is compared, and every line of the log."""

    listener: str
    source: str = CLIENT
    helo: str = "helo.test"
    sender: str = "joe@good.test"
    recipients: tuple[str, ...] = ("user@box.test",)
    content: bool = True


TABLE = """
ok@good.test OK
digits@good.test 1234
reject@good.test REJECT
rejtext@good.test REJECT go away
rejdsn@good.test REJECT 5.1.1 no such thing
defer@good.test DEFER
defertext@good.test DEFER 4.3.2 come back
four@good.test 450 4.1.1 later
five@good.test 550 never
fivedsn@good.test 571 5.1.2 never
fivebare@good.test 550
quit421@good.test 421 bye now
quit521@good.test 521 bye ever
dir@good.test DEFER_IF_REJECT
dip@good.test DEFER_IF_PERMIT
dirtext@good.test DEFER_IF_REJECT 4.7.5 perhaps
diptext@good.test defer_if_permit not so fast
dunno@good.test DUNNO
hold@good.test HOLD
holdtext@good.test HOLD for a while
discard@good.test DISCARD
discardtext@good.test DISCARD rubbish
filter@good.test FILTER discard:there
filterbad@good.test FILTER nothing
redirect@good.test REDIRECT other@box.test
redirectbad@good.test REDIRECT other
bcc@good.test BCC copy@box.test
prepend@good.test PREPEND X-Seen: yes indeed
prependbad@good.test PREPEND nothing
warn@good.test WARN take care
warnbare@good.test WARN
info@good.test INFO for you
restr@good.test reject_unauth_destination, reject
class@good.test strict
unknown@good.test no_such_thing
user@ REJECT by user part
user2+ext@ext.test REJECT with extension
user2@ext.test REJECT without extension
ext.test REJECT domain ext
.sub.test REJECT dotted
sub.test REJECT plain sub
<> REJECT null
d0@good.test 550 5.1.0 text
d1@good.test 550 5.1.1 text
d2@good.test 550 5.1.2 text
d3@good.test 550 5.1.3 text
d4@good.test 550 5.1.4 text
d5@good.test 550 5.1.5 text
d6@good.test 550 5.1.6 text
d7@good.test 550 5.1.7 text
d8@good.test 550 5.1.8 text
d9@good.test 550 5.1.9 text
d10@good.test 550 5.1.10 text
postmaster@here.test REJECT postmaster
"""
NAMES = """
good.client.test REJECT by name
client.test REJECT by parent
unknown REJECT no name
10.5.1.12 REJECT by address
10.5 REJECT by network
helo.test REJECT helo
.dotted.test REJECT dotted helo
[10.5.1.10] REJECT literal
10.6.0.1 REJECT mx address
mx.good.test 554 5.1.1 mx name
ns.good.test REJECT ns name
10.6.0.2 OK
plain.test OK
"""

LISTENERS = {
    "sender": "smtpd_sender_restrictions=check_sender_access texthash:{etc}/table",
    "recipient": "smtpd_recipient_restrictions=check_recipient_access texthash:{etc}/table,reject_unauth_destination -o smtpd_relay_restrictions=",
    "client": "smtpd_client_restrictions=check_client_access texthash:{etc}/names",
    "reverse": "smtpd_client_restrictions=check_reverse_client_hostname_access texthash:{etc}/names",
    "helo": "smtpd_helo_restrictions=check_helo_access texthash:{etc}/names",
    "heloreject": "smtpd_helo_restrictions=reject",
    "senderreject": "smtpd_sender_restrictions=reject",
    "clientdefer": "smtpd_client_restrictions=defer",
    "datareject": "smtpd_data_restrictions=reject",
    "eodreject": "smtpd_end_of_data_restrictions=reject",
    "eodtable": "smtpd_end_of_data_restrictions=check_sender_access texthash:{etc}/table",
    "sendermx": "smtpd_sender_restrictions=check_sender_mx_access texthash:{etc}/names",
    "senderns": "smtpd_sender_restrictions=check_sender_ns_access texthash:{etc}/names",
    "sendera": "smtpd_sender_restrictions=check_sender_a_access texthash:{etc}/names",
    "helomx": "smtpd_helo_restrictions=check_helo_mx_access texthash:{etc}/names",
    "clienta": "smtpd_client_restrictions=check_client_a_access texthash:{etc}/names",
    "failing": "smtpd_sender_restrictions=check_sender_access fail:broken",
    "bare": "smtpd_sender_restrictions=texthash:{etc}/table",
    "warnif": "smtpd_sender_restrictions=warn_if_reject,check_sender_access,texthash:{etc}/table,warn_if_reject,reject",
    "unkclient": "smtpd_client_restrictions=reject_unknown_client_hostname",
    "unkreverse": "smtpd_client_restrictions=reject_unknown_reverse_client_hostname",
    "unkhelo": "smtpd_helo_restrictions=reject_unknown_helo_hostname",
    "unksender": "smtpd_sender_restrictions=reject_unknown_sender_domain",
    "unkrcpt": "smtpd_recipient_restrictions=reject_unknown_recipient_domain,reject_unauth_destination -o smtpd_relay_restrictions=",
    "unkdefer": "smtpd_sender_restrictions=reject_unknown_sender_domain -o reject_tempfail_action=defer",
    "rbl": "smtpd_client_restrictions=reject_rbl_client rbl.test",
    "rblfilter": "smtpd_client_restrictions=reject_rbl_client,rbl.test=127.0.0.[3..8],reject_rbl_client,rbl.test=127.0.0.[1;9]",
    "rblbroken": "smtpd_client_restrictions=reject_rbl_client broken.test",
    "rblreply": "smtpd_client_restrictions=reject_rbl_client,rbl.test -o rbl_reply_maps=texthash:{etc}/replies",
    "rblold": "smtpd_client_restrictions=reject_maps_rbl -o maps_rbl_domains=none.test,rbl.test",
    "rhsender": "smtpd_sender_restrictions=reject_rhsbl_sender rhsbl.test",
    "rhhelo": "smtpd_helo_restrictions=reject_rhsbl_helo rhsbl.test",
    "rhclient": "smtpd_client_restrictions=reject_rhsbl_client rhsbl.test",
    "rhreverse": "smtpd_client_restrictions=reject_rhsbl_reverse_client rhsbl.test",
    "rhrcpt": "smtpd_recipient_restrictions=reject_rhsbl_recipient rhsbl.test,reject_unauth_destination -o smtpd_relay_restrictions=",
    "white": "smtpd_client_restrictions=permit_dnswl_client,white.test,reject",
    "whitefilter": "smtpd_client_restrictions=permit_dnswl_client,white.test=127.0.[2..9].3,reject",
    "whitebroken": "smtpd_client_restrictions=permit_dnswl_client,broken.test,reject",
    "mxbackup": "smtpd_relay_restrictions=permit_mx_backup,reject",
    "naked": "smtpd_helo_restrictions=permit_naked_ip_address,reject",
    "plaintext": "smtpd_client_restrictions=reject_plaintext_session",
    "multi": "smtpd_data_restrictions=reject_multi_recipient_bounce",
    "logins": "smtpd_sender_restrictions=reject_sender_login_mismatch",
    "unauthlogins": "smtpd_sender_restrictions=reject_unauthenticated_sender_login_mismatch",
    "classes": "smtpd_recipient_restrictions=strict,permit",
    "policy": "smtpd_client_restrictions=check_policy_service,inet:127.0.0.1:9998 "
    "-o smtpd_recipient_restrictions=check_policy_service,inet:127.0.0.1:9998 "
    "-o smtpd_data_restrictions=check_policy_service,inet:127.0.0.1:9998 "
    "-o smtpd_end_of_data_restrictions=check_policy_service,inet:127.0.0.1:9998 "
    "-o smtpd_policy_service_policy_context=here -o smtpd_policy_service_retry_delay=1",
    "policyearly": "smtpd_client_restrictions=check_policy_service,inet:127.0.0.1:9998 -o smtpd_delay_reject=no "
    "-o smtpd_helo_restrictions=check_policy_service,inet:127.0.0.1:9998 "
    "-o smtpd_sender_restrictions=check_policy_service,inet:127.0.0.1:9998",
    "unvrcpt": "smtpd_recipient_restrictions=reject_unverified_recipient,reject_unauth_destination -o smtpd_relay_restrictions=",
    "unvsender": "smtpd_sender_restrictions=reject_unverified_sender",
    "unvcodes": "smtpd_sender_restrictions=reject_unverified_sender -o unverified_sender_reject_code=550 "
    "-o unverified_sender_defer_code=451 -o unverified_sender_tempfail_action=defer",
    "unvreason": "smtpd_sender_restrictions=reject_unverified_sender -o unverified_sender_reject_reason=no.such",
    "footer": r"smtpd_sender_restrictions=check_sender_access texthash:{etc}/table -o smtpd_reject_footer=call:$client_address",
    "footerc": r"smtpd_sender_restrictions=check_sender_access texthash:{etc}/table "
    r"-o smtpd_reject_footer=\c.call:$server_name\nand(${client_address})",
    "footermap": "smtpd_sender_restrictions=check_sender_access texthash:{etc}/table -o smtpd_reject_footer=no "
    "-o smtpd_reject_footer_maps=static:mapped.$client_address",
    "footerbad": "smtpd_sender_restrictions=check_sender_access texthash:{etc}/table -o smtpd_reject_footer=the.$no_such_name",
    "unlsender": "smtpd_sender_restrictions=check_sender_access,inline:{d@alias.test=DISCARD},permit "
    "-o smtpd_reject_unlisted_sender=yes",
    "early": "smtpd_client_restrictions=check_client_access,texthash:{etc}/early -o smtpd_delay_reject=no "
    "-o smtpd_helo_restrictions=reject_unknown_helo_hostname -o smtpd_sender_restrictions=reject_unknown_sender_domain",
}



def policy(request: dict[str, str]) -> str | None:
    """What the policy server says."""
    who = request["sender"].partition("@")[0]
    state = request["protocol_state"]
    if who == "hangup":
        return None
    if who == "eod":
        return "450 4.7.3 wait at the end" if state == "END-OF-MESSAGE" else "DUNNO"
    if who == "dip":
        return "defer_if_permit Service temporarily unavailable" if state == "RCPT" else "dunno"
    answers = {"reject": "REJECT policy says no", "restriction": "permit_mynetworks, reject", "nonsense": "no_such_thing"}
    return answers.get(who, "DUNNO")


_SENDERS = [line.split()[0] for line in TABLE.splitlines() if "@good.test" in line]
TALKS = [
    *(Talk("sender", sender=sender) for sender in _SENDERS),
    *(Talk("sender", sender=s) for s in ("", "user@other.test", "user2+ext@ext.test", "user2+x@ext.test", "a@ext.test",
                                         "a@b.ext.test", "a@sub.test", "a@x.sub.test", "a@y.x.sub.test")),
    *(Talk("recipient", recipients=(f"{w}@good.test", "user3@box.test")) for w in ("reject", "rejdsn", "four", "fivedsn", "dir",
                                                                              "hold", "bcc")),
    *(Talk("recipient", recipients=(f"d{n}@good.test",)) for n in range(11)),
    Talk("recipient", recipients=("postmaster",)),
    Talk("eodtable", sender="reject@good.test"), Talk("eodtable", sender="quit421@good.test"),
    Talk("eodtable", sender="prepend@good.test"), Talk("eodtable", sender="hold@good.test"),
    *(Talk("client", source=f"10.5.1.{n}") for n in (10, 11, 12, 13, 14)),
    *(Talk("reverse", source=f"10.5.1.{n}") for n in (10, 11, 12, 13, 14)),
    *(Talk("helo", helo=h) for h in ("helo.test", "x.helo.test", "a.dotted.test", "[10.5.1.10]", "other.test", "plain.test")),
    Talk("heloreject"), Talk("senderreject"), Talk("senderreject", sender=""), Talk("clientdefer"), Talk("datareject"),
    Talk("eodreject"), Talk("datareject", recipients=("a@box.test", "b@box.test")),
    *(Talk("sendermx", sender=f"joe@{d}") for d in ("good.test", "plain.test", "fail.test", "nonexist.test", "nullmx.test",
                                                    "[10.6.0.1]")),
    *(Talk("senderns", sender=f"joe@{d}") for d in ("good.test", "x.good.test", "plain.test", "fail.test")),
    *(Talk("sendera", sender=f"joe@{d}") for d in ("mx.good.test", "plain.test", "nonexist.test", "fail.test")),
    *(Talk("helomx", helo=h) for h in ("good.test", "[10.6.0.1]", "nonexist.test")),
    Talk("clienta"), Talk("failing"), Talk("failing", sender=""), Talk("bare", sender="reject@good.test"),
    Talk("warnif", sender="reject@good.test"), Talk("warnif", sender="hold@good.test"), Talk("warnif", sender="dip@good.test"),
    *(Talk(f"unk{kind}", source=f"10.5.1.{n}") for n in (10, 11, 12, 13, 14) for kind in ("client", "reverse")),
    *(Talk("unkhelo", helo=h) for h in ("good.test", "plain.test", "nonexist.test", "fail.test", "nodata.test", "[10.1.1.1]",
                                        "nullmx.test")),
    *(Talk(listener, sender=f"joe@{d}") for listener in ("unksender", "unkdefer")
      for d in ("good.test", "plain.test", "nonexist.test", "fail.test", "nodata.test", "nullmx.test", "box.test", "[10.1.1.1]")),
    *(Talk("unkrcpt", recipients=(f"joe@{d}",)) for d in ("good.test", "nonexist.test", "fail.test", "nullmx.test", "box.test")),
    *(Talk(name) for name in LISTENERS if name.startswith(("rbl", "rh", "white"))),
    Talk("rbl", source="10.5.1.12"), Talk("white", source="10.5.1.12"), Talk("rhrcpt", recipients=("a@good.test",)),
    Talk("rhsender", sender=""), Talk("rhhelo", helo="[10.5.1.1]"),
    Talk("white", recipients=("a@far.test",)),
    *(Talk("mxbackup", recipients=(f"a@{d}",)) for d in ("backup.test", "primary.test", "good.test", "fail.test", "box.test")),
    Talk("naked", helo="[10.1.1.1]"), Talk("naked", helo="10.1.1.1"), Talk("naked"), Talk("plaintext"),
    Talk("multi", sender="", recipients=("a@box.test", "b@box.test")), Talk("multi", sender=""),
    Talk("multi", recipients=("a@box.test", "b@box.test")),
    *(Talk(listener, sender=s) for listener in ("logins", "unauthlogins") for s in ("owned@good.test", "free@good.test", "")),
    Talk("classes"), Talk("classes", sender="joe@nonexist.test"), Talk("classes", recipients=("nobody@far.test",)),
    *(Talk("policy", sender=f"{w}@good.test") for w in ("dunno", "reject", "eod", "restriction", "hangup", "nonsense", "dip")),
    Talk("policy", recipients=("a@box.test", "b@box.test")), Talk("policy", sender=""), Talk("policyearly"),
    Talk("policy", sender="a b@good.test"), Talk("policy", recipients=("nobody@far.test",)),
    *(Talk("unvrcpt", recipients=(a,)) for a in ("u@box.test", "u@bounce.test", "u@defer.test", "u@defer.test", "u@bounce.test")),
    *(Talk(listener, sender=a) for a in ("u@box.test", "u@bounce.test", "u@defer.test", "")
      for listener in ("unvsender", "unvcodes", "unvreason")),
    *(Talk(listener, sender=f"{w}@good.test") for listener in ("footer", "footerc", "footermap", "footerbad")
      for w in ("reject", "rejdsn", "quit421", "ok", "hold")),
    *(Talk("unlsender", sender=s) for s in ("x@alias.test", "x@box.test", "x@far.test", "d@alias.test", "")),
    Talk("early"), Talk("early", source="10.5.1.12"), Talk("early", source="10.5.1.13"), Talk("early", helo="nonexist.test"),
    Talk("early", sender="joe@nonexist.test"), Talk("early", sender="joe@fail.test"),
]  # fmt: skip

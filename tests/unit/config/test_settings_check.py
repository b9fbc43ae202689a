"""`check_configuration`: what is refused, and what is pointed out."""

from __future__ import annotations

from pathlib import Path

from estafeta.config.settings_check import check_configuration

MASTER = "smtp inet n - n - - smtpd\nlocal unix - n n - - local\n"
PROGRAMS = ("smtpd", "local")


def texts(directory: Path, main: str, master: str = MASTER) -> list[str]:
    if "compatibility_level" not in main:
        main += "compatibility_level = 3.6\n"  # at level 0 nothing keeps strangers from relaying: refused, as by Postfix
    (directory / "main.cf").write_text(main)
    (directory / "master.cf").write_text(master)
    return [str(problem).replace(f"{directory}/", "") for problem in check_configuration(str(directory), PROGRAMS)]


def test_nothing_to_say(tmp_path: Path) -> None:
    assert texts(tmp_path, "myhostname = a.example\n") == []


def test_values_and_names(tmp_path: Path) -> None:
    found = texts(
        tmp_path, "soft_bounce = maybe\nfoo = 1\nvirtual_maps = static:x\nmyhostname = $own $nosuch\nown = 2\n"
    )
    assert 'fatal: main.cf, line 1: parameter soft_bounce: bad boolean value: "maybe" (specify "yes" or "no")' in found
    assert "warning: main.cf, line 2: unused parameter: foo=1" in found
    assert "warning: main.cf, line 3: parameter virtual_maps is an old form; use virtual_alias_maps instead" in found
    assert "warning: main.cf: undefined parameter: nosuch" in found
    assert not any("own" in text.split() for text in found)


def test_what_is_not_implemented_is_named(tmp_path: Path) -> None:
    assert texts(tmp_path, "qmqpd_error_delay = 2s\n") == [
        "warning: main.cf, line 1: parameter qmqpd_error_delay is set but not implemented: it has no effect"
    ]


def test_old_restrictions(tmp_path: Path) -> None:
    found = texts(tmp_path, "smtpd_recipient_restrictions = permit_mynetworks, check_relay_domains\n")
    assert any('"check_relay_domains" is an old form' in text for text in found)


def test_size_limits(tmp_path: Path) -> None:
    found = texts(tmp_path, "mailbox_size_limit = 1000\n")
    assert any(
        text.startswith("fatal: main.cf, line 1:") and "smaller than message_size_limit" in text for text in found
    )
    assert not any("smaller" in text for text in texts(tmp_path, "mailbox_size_limit = 0\nvirtual_mailbox_limit = 0\n"))


def test_master_cf(tmp_path: Path) -> None:
    found = texts(
        tmp_path,
        "",
        "a unix - - - - - nosuch\nlocal unix - n y - - local\nb inet y - - - - smtpd\nc inet n - n 60 - smtpd\n",
    )
    assert found == [
        "fatal: master.cf, line 3: service b: an inet service cannot be private",
        "fatal: master.cf, line 1: service a/unix: no such program: nosuch",
        "fatal: master.cf, line 2: service local/unix: local cannot run in a jail",
        "warning: master.cf, line 4: service c/inet: an inet service is not woken up",
    ]
    found = texts(tmp_path, "", "lmtpl unix - - n - - lmtpl\n")
    assert found == ["warning: master.cf, line 1: service lmtpl/unix: no such program: lmtpl: the service does not run"]
    found = texts(tmp_path, "", "smtp inet n - n - - smtpd -o smtpd_timeout=soon -o nosuch=1\n")
    assert "fatal: master.cf, line 1: service smtp/inet: parameter smtpd_timeout: bad time value" in found[0]
    assert "warning: master.cf: unused parameter: nosuch=1" in found


def test_unreadable(tmp_path: Path) -> None:
    assert [problem.severity for problem in check_configuration(str(tmp_path))] == ["fatal"]
    assert any("bad field count" in text for text in texts(tmp_path, "", "x inet n\n"))


def test_open_relay_is_refused(tmp_path: Path) -> None:
    say = "specify at least one working instance of: reject_unauth_destination"
    assert any(text.startswith("warning:") and say in text for text in texts(tmp_path, "compatibility_level = 0\n"))
    main = "smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = permit_mynetworks, own\nsmtpd_restriction_classes = own\n"
    assert any(say in text for text in texts(tmp_path, main + "own = permit\n"))
    assert not any(say in text for text in texts(tmp_path, main + "own = reject\n"))
    found = texts(tmp_path, "", "587 inet n - n - - smtpd\n  -o smtpd_relay_restrictions=permit_sasl_authenticated\n")
    assert next(text for text in found if say in text).startswith("fatal: master.cf, line 1: service 587/inet:")


def test_restriction_names(tmp_path: Path) -> None:
    found = texts(tmp_path, "\nsmtpd_client_restrictions = permit_mynetwork\n")
    assert found == ['fatal: main.cf, line 2: parameter smtpd_client_restrictions: unknown smtpd restriction: "permit_mynetwork"']
    found = texts(tmp_path, "smtpd_client_restrictions = check_client_access hash:/x, hash:/y, sleep 1, Reject_Unauth_Pipelining\n")
    assert [text for text in found if "fatal" in text] == []


def test_values_with_a_syntax_of_their_own(tmp_path: Path) -> None:
    for line, say in (
        ("myhostname = -a..b", "bad host name"),
        ("inet_protocols = ipv5", "specify all, ipv4 or ipv6"),
        ("syslog_facility = nosuch", "unknown syslog facility"),
        ("queue_directory = spool", "no absolute path"),
        ("smtpd_banner = a\0b", "control character"),
        ("virtual_alias_maps = /etc/virtual", 'expecting "type:name" form'),
        ("compatibility_level = x.y", "malformed compatibility level"),
    ):
        found = [text for text in texts(tmp_path, f"\n{line}\n") if text.startswith("fatal")]
        assert len(found) == 1, found
        assert found[0].startswith(f"fatal: main.cf, line 2: parameter {line.split()[0]}: ") and say in found[0]


def test_networks_that_are_none(tmp_path: Path) -> None:
    good = "mynetworks = 127.0.0.0/8 [::1]/128 !10.1.2.3 hash:/x /file 192.168.0.1/32 name.example [::ffff:127.0.0.0]/104\n"
    assert texts(tmp_path, good) == []
    found = texts(tmp_path, "\nmynetworks = 127.0.0.1/8, 10.0.0.0/40, [::1]/129\n")
    assert len(found) == 3
    assert found[0].startswith('warning: main.cf, line 2: parameter mynetworks: pattern "127.0.0.1/8" is skipped: ')

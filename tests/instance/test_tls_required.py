"""There is no TLS yet: a service that insists on it takes nothing in clear, and says so."""

from __future__ import annotations

from support.instance import MASTER_CF, Client, free_port, running


def test_a_service_that_insists_on_tls_takes_nothing_in_clear() -> None:
    submission, smtps = free_port(), free_port()
    services = (
        f"127.0.0.1:{submission} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt\n"
        f"127.0.0.1:{smtps} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes\n"
    )
    with running(master_cf=MASTER_CF + services) as instance:
        with Client(submission) as client:
            client.reply()
            client.ask(b"EHLO x")
            assert client.ask(b"MAIL FROM:<a@test.example>") == b"530 5.7.0 Must issue a STARTTLS command first\r\n"
        with Client(smtps, timeout_s=30.0):
            instance.wait_log("fatal: smtpd_tls_wrappermode = yes: TLS is not there yet")
        with Client(instance.port) as client:  # the others go on
            client.reply()
            client.ask(b"EHLO x")
            assert client.send(b"a@test.example", [b"x@discard.test"], b"Subject: x\r\n\r\n").startswith(b"250")

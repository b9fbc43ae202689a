"""A certificate is renewed under load: no restart, no session broken, no message lost; files that do not fit change nothing."""

from __future__ import annotations

import ssl
import threading

from support.certificates import Authority
from support.instance import running, wait_for
from support.tls_client import TlsClient, message


def _certificate(port: int) -> bytes:
    with TlsClient(port) as client:
        secured: ssl.SSLSocket = client.start_tls()
        found = secured.getpeercert(True)
        assert found
        client.ask(b"QUIT")
        return found


def test_renewal_under_load() -> None:
    with running("smtpd_tls_security_level = may\n") as instance:
        # The settings name files below the instance's own directory: write them and reload.
        authority = Authority(instance.directory / "ca")
        pair = authority.issue("mail.test.example", "mail.test.example")
        main = instance.etc / "main.cf"
        main.write_text(main.read_text() + f"smtpd_tls_cert_file = {pair.certificate}\nsmtpd_tls_key_file = {pair.key}\n")
        assert instance.command("postfix", "reload").returncode == 0
        instance.wait_log("reload -- version")
        first = _certificate(instance.port)
        sent = []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                with TlsClient(instance.port) as client:
                    client.start_tls()
                    for _ in range(5):
                        message(client)
                        sent.append(1)
                    client.ask(b"QUIT")

        thread = threading.Thread(target=load)
        old_session = TlsClient(instance.port)
        old_session.start_tls()
        thread.start()
        try:
            # A key of another pair: nothing changes, and it is said.
            good_key = pair.key.read_bytes()
            other = authority.issue("other.example", file="other")
            pair.key.write_bytes(other.key.read_bytes())
            instance.wait_log("new certificate files are not taken: .* does not belong to the certificate")
            pair.key.write_bytes(good_key)
            authority.issue("mail.test.example", "mail.test.example", file="mail.test.example")
            instance.wait_log("certificate files have changed: new workers")
            wait_for(lambda: _certificate(instance.port) != first, what="the new certificate")
            message(old_session)  # what was under way goes on
            sent.append(1)
        finally:
            stop.set()
            thread.join()
            old_session.close()
        wait_for(lambda: len(instance.mailbox("user")) == len(sent), what=f"{len(sent)} messages")
        assert not instance.unexpected()

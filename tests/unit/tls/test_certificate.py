"""What certificates say, and whose names they match."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estafeta.tls.certificate import matched_name, read_certificate
from support.certificates import Authority


def test_reading(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("host.example", "Host.example", "*.wild.example")
    found = read_certificate(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()), "sha256")
    assert (found.subject, found.issuer) == ("host.example", "Test CA")
    assert found.names == ("host.example", "*.wild.example")
    assert (found.fingerprint, found.pubkey_fingerprint) == (pair.fingerprint, pair.pubkey_fingerprint)


def test_a_name_with_line_breaks_does_not_reach_the_log(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("evil\r\nX-Header: y", file="evil")
    found = read_certificate(ssl.PEM_cert_to_DER_cert(pair.certificate.read_text()), "sha256")
    assert found.subject == "evil??X-Header: y"


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    assert read_certificate(data, "sha256").names == ()


@pytest.mark.parametrize(
    ("wanted", "name", "many", "same"),
    [
        ("a.example", "a.example", True, True),
        ("A.example", "a.example", True, True),
        ("a.example", "b.example", True, False),
        (".example.com", "a.example.com", True, True),
        (".example.com", "a.b.example.com", True, True),
        (".example.com", "example.com", True, False),
        (".example.com", "badexample.com", True, False),
        ("a.example.com", "*.example.com", True, True),
        ("a.b.example.com", "*.example.com", True, True),
        ("a.b.example.com", "*.example.com", False, False),
        ("example.com", "*.example.com", True, False),
        ("a.com", "*.com", True, False),
        ("a.example.com", "*", True, False),
    ],
)
def test_matching(wanted: str, name: str, many: bool, same: bool) -> None:
    assert (matched_name([wanted], [name], many_labels=many) is not None) == same

"""The mechanisms against the examples of their RFCs, against each other, and against nonsense."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estafeta.sasl import vocabulary as v
from estafeta.sasl.cram_md5 import cram_client, cram_server
from estafeta.sasl.digest_md5 import digest_client, digest_server, parse_directives, quoted
from estafeta.sasl.machines import client_machine, server_machine
from estafeta.sasl.properties import MECHANISMS, read_options
from estafeta.sasl.scram import make_verifier, prepared, scram_client, scram_server, verifier_of

NAMES = v.ServerNames("mail.test", "realm.test")


def serve(machine: v.ServerMachine, responses: list[bytes], account: v.Account | None) -> tuple[list[bytes], str]:
    """(challenges, user) of a server machine with one account."""
    challenges: list[bytes] = []
    try:
        ask = next(machine)
        while True:
            answer: Any
            if isinstance(ask, v.Challenge):
                challenges.append(ask.data)
                answer = responses.pop(0)
            elif isinstance(ask, v.WantAccount):
                answer = account
            elif isinstance(ask, v.WantCheck):
                answer = account is not None and account.password == ask.password
            else:
                answer = ask.derive()
            ask = machine.send(answer)
    except StopIteration as stop:
        return challenges, stop.value.name


def converse(mechanism: str, credentials: v.Credentials, account: v.Account | None) -> str:
    """Our client with our server; the user that the server names."""
    client = client_machine(mechanism, credentials, "mail.test")
    server: v.ServerMachine | None = None

    def say(data: Any) -> Any:
        answer = client.send(data)
        while isinstance(answer, v.WantKey):
            answer = client.send(answer.derive())
        return answer

    server = server_machine(mechanism, NAMES, say(None))
    try:
        ask = next(server)
        while True:
            if isinstance(ask, v.Challenge):
                ask = server.send(say(ask.data))
            elif isinstance(ask, v.WantAccount):
                ask = server.send(account)
            elif isinstance(ask, v.WantCheck):
                ask = server.send(account is not None and account.password == ask.password)
            else:
                ask = server.send(ask.derive())
    except StopIteration as stop:
        return stop.value.name


def test_cram_md5_of_rfc2195() -> None:
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    client = cram_client(v.Credentials("tim", b"tanstaaftanstaaf"))
    assert client.send(None) is None
    response = client.send(challenge)
    assert response == b"tim b913a602c7eda7a495b4e6e7334d3890"
    account = v.Account(b"tanstaaftanstaaf")
    assert serve(cram_server(NAMES, None, challenge), [response], account) == ([challenge], "tim@realm.test")
    with pytest.raises(v.SaslFailed, match="authentication failure"):
        serve(cram_server(NAMES, None, challenge), [response[:-1] + b"1"], account)


def test_digest_md5_of_rfc2831() -> None:
    client = digest_client(v.Credentials("chris", b"secret"), "elwood.innosoft.com", "imap", cnonce=b"OA6MHXh6VqTrRk")
    next(client)
    response = client.send(
        b'realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth",algorithm=md5-sess,charset=utf-8'
    )
    assert isinstance(response, bytes)
    assert parse_directives(response)[b"response"] == b"d388dad90d4bbd760a152321f2143af7"
    assert client.send(b"rspauth=ea40f60335c427b5527b84dbabcdfffd") == b""
    names = v.ServerNames("elwood.innosoft.com", "", "imap")
    machine = digest_server(names, None, nonce=b"OA6MG9tEQGm2hh")
    challenges, user = serve(machine, [response, b""], v.Account(b"secret"))
    assert challenges[1] == b"rspauth=ea40f60335c427b5527b84dbabcdfffd"
    assert user == "chris@elwood.innosoft.com"


def test_a_digest_server_that_does_not_know_the_password_is_found_out() -> None:
    client = digest_client(v.Credentials("chris", b"secret"), "h")
    next(client)
    client.send(b'realm="r",nonce="n",qop="auth",algorithm=md5-sess,charset=utf-8')
    with pytest.raises(v.SaslFailed, match=v.UNPROVEN):
        client.send(b"rspauth=ea40f60335c427b5527b84dbabcdfffd")


@pytest.mark.parametrize(
    ("mechanism", "nonce", "server_nonce", "salt", "proof", "signature"),
    [
        ("SCRAM-SHA-1", "fyko+d2lbbFgONRv9qkxdawL", "3rfcNHYJY1ZVvWVs7j", "QSXCR+Q6sek8bf92", "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
         "rmF9pqV8S7suAoZWja4dJRkFsKQ="),
        ("SCRAM-SHA-256", "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", "W22ZaJ0SNY7soEsUEjb6gQ==",
         "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
    ],
)  # fmt: skip
def test_scram_of_the_rfcs(mechanism: str, nonce: str, server_nonce: str, salt: str, proof: str, signature: str) -> None:
    both = (nonce + server_nonce).encode()
    client = scram_client(mechanism, v.Credentials("user", b"pencil"), nonce.encode())
    first = client.send(None)
    assert first == b"n,,n=user,r=" + nonce.encode()
    want = client.send(b"r=" + both + b",s=" + salt.encode() + b",i=4096")
    assert isinstance(want, v.WantKey)
    salted = want.derive()
    final = client.send(salted)
    assert final == b"c=biws,r=" + both + b",p=" + proof.encode()
    assert client.send(b"v=" + signature.encode()) == b""
    verifier = verifier_of(salted, want.hash_name, base64.b64decode(salt), 4096)
    machine = scram_server(mechanism, v.ServerNames("h"), first, server_nonce.encode())
    challenges, user = serve(machine, [final, b""], v.Account(None, {want.hash_name: verifier}))
    assert (challenges[1], user) == (b"v=" + signature.encode(), "user")


def test_a_scram_client_does_not_work_for_ever_nor_trust_anybody() -> None:
    client = scram_client("SCRAM-SHA-256", v.Credentials("user", b"pencil"), b"abc")
    client.send(None)
    with pytest.raises(v.SaslFailed):
        client.send(b"r=abcdef,s=QSXCR+Q6sek8bf92,i=999999999")
    client = scram_client("SCRAM-SHA-256", v.Credentials("user", b"pencil"), b"abc")
    client.send(None)
    with pytest.raises(v.SaslFailed):
        client.send(b"r=abc,s=QSXCR+Q6sek8bf92,i=4096")  # no nonce of the server's
    client = scram_client("SCRAM-SHA-256", v.Credentials("user", b"pencil"), b"abc")
    client.send(None)
    want = client.send(b"r=abcdef,s=QSXCR+Q6sek8bf92,i=4096")
    assert isinstance(want, v.WantKey)
    client.send(want.derive())
    with pytest.raises(v.SaslFailed):
        client.send(b"v=AAAA")


@pytest.mark.parametrize("mechanism", list(MECHANISMS))
@pytest.mark.parametrize(("user", "password"), [("joe", "secret"), ("joe@realm.test", "a, b=c\"\\"), ("jürgen", "pässwörd"), ("日本", "パス")])
def test_client_and_server_of_ours(mechanism: str, user: str, password: str) -> None:
    credentials = v.Credentials(user, password.encode())
    expected = user if "@" in user else f"{user}@realm.test"
    assert converse(mechanism, credentials, v.Account(password.encode())) == expected
    for account in (None, v.Account(b"other")):
        with pytest.raises(v.SaslFailed, match=v.AUTHENTICATION) as failed:
            converse(mechanism, credentials, account)
        assert not failed.value.temporary


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
def test_scram_from_what_is_kept(mechanism: str) -> None:
    hash_name = "sha256" if mechanism.endswith("256") else "sha1"
    account = v.Account(None, {hash_name: make_verifier(b"secret", hash_name)})
    assert converse(mechanism, v.Credentials("joe", b"secret"), account) == "joe@realm.test"
    with pytest.raises(v.SaslFailed):
        converse(mechanism, v.Credentials("joe", b"secreT"), account)


def test_nobody_acts_for_another() -> None:
    for mechanism in ("PLAIN", "DIGEST-MD5", "SCRAM-SHA-256"):
        credentials = v.Credentials("joe", b"secret", authorize_as="jane")
        with pytest.raises(v.SaslFailed, match=v.AUTHENTICATION):
            converse(mechanism, credentials, v.Account(b"secret"))
        assert converse(mechanism, v.Credentials("joe", b"secret", "joe"), v.Account(b"secret")) == "joe@realm.test"


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(MECHANISMS)), st.one_of(st.none(), st.binary(max_size=60)), st.lists(st.binary(max_size=80), min_size=4, max_size=4))
def test_nonsense_never_gets_in(mechanism: str, initial: bytes | None, responses: list[bytes]) -> None:
    account = v.Account(b"a password that nobody guesses")
    with pytest.raises(v.SaslFailed):
        serve(server_machine(mechanism, NAMES, initial), responses, account)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(list(MECHANISMS)), st.lists(st.binary(max_size=80), min_size=4, max_size=4))
def test_a_client_survives_nonsense(mechanism: str, challenges: list[bytes]) -> None:
    client = client_machine(mechanism, v.Credentials("joe", b"secret"), "h")
    try:
        client.send(None)
        for challenge in challenges:
            answer = client.send(challenge)
            assert mechanism != "PLAIN"
            while isinstance(answer, v.WantKey):
                answer = client.send(answer.derive())
    except (v.SaslFailed, StopIteration):
        pass


@given(st.dictionaries(st.from_regex(rb"[a-z-]{1,10}", fullmatch=True), st.binary(max_size=20).filter(lambda b: b"\0" not in b), max_size=5))
def test_directives_come_back(items: dict[bytes, bytes]) -> None:
    assert parse_directives(b",".join(name + b"=" + quoted(value) for name, value in items.items())) == items


@given(st.binary(max_size=50))
def test_base64_is_strict(data: bytes) -> None:
    text = base64.b64encode(data)
    assert v.decode(text) == data
    for bad in (text + b"\n", text + b"=", b" " + text, text + b"*"):
        with pytest.raises(v.SaslFailed):
            v.decode(bad)


def test_bits_that_do_not_count_must_be_zero() -> None:
    with pytest.raises(v.SaslFailed):
        v.decode(b"eB==")


def test_no_secret_in_what_is_printed() -> None:
    things = (v.Credentials("u", b"secret"), v.Account(b"secret"), v.Challenge(b"secret"), v.WantKey("sha1", 1, b"secret", b"secret"),
              v.WantCheck(v.Identity("u", "r", "u"), b"secret"))  # fmt: skip
    for thing in things:
        assert "secret" not in repr(thing)


def test_prepared_passwords() -> None:
    assert prepared("I\u00adX".encode()) == b"IX"
    assert prepared("\u2168".encode()) == b"IX"
    assert prepared(b"\xff\xfe") == b"\xff\xfe"


def test_options() -> None:
    options, unknown = read_options(["NoPlaintext", "noanonymous", "foo"])
    assert (options, unknown) == (frozenset(("noplaintext", "noanonymous")), ["foo"])
    assert not MECHANISMS["PLAIN"].fits(options)
    assert MECHANISMS["CRAM-MD5"].fits(options)

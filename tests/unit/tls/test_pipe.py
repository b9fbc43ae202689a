"""Two pipes against one another: whole, byte by byte; broken input; contexts that share ticket keys."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estafeta.tls.library import library
from estafeta.tls.pipe import TlsError, TlsPipe
from estafeta.tls.summary import summarize
from estafeta.tls.ticket_keys import ticket_keys
from support.certificates import Authority, Pair
from support.tls_client import client_context


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Authority(tmp_path_factory.mktemp("ca")).issue("a.example", "a.example")


def _server(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def _shake(client: TlsPipe, server: TlsPipe, step: int = 100000) -> None:
    for _ in range(10):
        for here, there in ((client, server), (server, client)):
            if not here.ready:
                here.shake_hands()
            data = here.outgoing()
            for position in range(0, len(data), step):
                there.feed(data[position : position + step])
                if not there.ready:
                    there.shake_hands()
    assert client.ready
    assert server.ready


@pytest.mark.parametrize("step", [1, 7, 100000])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_ways(pair: Pair, step: int, version: ssl.TLSVersion) -> None:
    client = TlsPipe(client_context(version), server_side=False)
    server = TlsPipe(_server(pair), server_side=True)
    _shake(client, server, step)
    for size in (1, 16384, 100000):
        server.feed(client.write(b"x" * size))
        assert len(server.read()) == size
    assert server.read() == b""
    server.feed(client.close())
    assert server.read() == b""
    assert server.at_end
    text = summarize(server.link, server_side=True, digest="sha256").text
    if version is ssl.TLSVersion.TLSv1_3:
        assert text.endswith("key-exchange X25519 server-signature ECDSA (prime256v1) server-digest SHA256")
    else:
        assert text.startswith("TLSv1.2 with cipher ECDHE-ECDSA-")


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_garbage_is_an_error_or_not_enough(pair: Pair, data: bytes) -> None:
    server = TlsPipe(_server(pair), server_side=True)
    server.feed(data)
    try:
        assert not server.shake_hands()
    except TlsError as error:
        assert error.reason.startswith("error:")


@pytest.mark.skipif(not library().usable, reason="this Python's libssl cannot be reached")
def test_contexts_with_the_same_ticket_keys_resume_each_others_sessions(pair: Pair) -> None:
    def reused(service: bytes) -> bool:
        first, second = _server(pair), _server(pair)
        assert library().set_ticket_keys(first, ticket_keys(b"a", 1))
        assert library().set_ticket_keys(second, ticket_keys(service, 1))
        mine = client_context()
        client, server = TlsPipe(mine, server_side=False), TlsPipe(first, server_side=True)
        _shake(client, server)
        client.read()  # the ticket
        again, other = TlsPipe(mine, server_side=False, session=client.link.session), TlsPipe(second, server_side=True)
        _shake(again, other)
        return bool(again.link.session_reused)

    assert reused(b"a")
    assert not reused(b"b")
    assert ticket_keys(b"a", 1) != ticket_keys(b"a", 2)


def test_key_files(tmp_path: Path, pair: Pair) -> None:
    from estafeta.tls.key_files import TlsSetupError, load_chains, load_pair

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(pair.key.read_bytes() + pair.certificate.read_bytes())
    load_chains(context, [str(chain)])
    load_chains(context, [str(pair.key), str(pair.certificate)])
    with pytest.raises(TlsSetupError, match="before its key"):
        load_chains(context, [str(pair.certificate)])
    other = Authority(tmp_path / "b").issue("b.example")
    with pytest.raises(TlsSetupError, match="does not belong to the certificate"):
        load_pair(context, "RSA", str(pair.certificate), str(other.key))
    with pytest.raises(TlsSetupError, match="No such file"):
        load_pair(context, "RSA", "/nonexistent", "")

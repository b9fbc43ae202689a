"""Which machine speaks which mechanism."""

from __future__ import annotations

from estafeta.sasl.cram_md5 import cram_client, cram_server
from estafeta.sasl.digest_md5 import digest_client, digest_server
from estafeta.sasl.plain import login_client, login_server, plain_client, plain_server
from estafeta.sasl.scram import HASHES, scram_client, scram_server
from estafeta.sasl.vocabulary import ClientMachine, Credentials, ServerMachine, ServerNames

_SERVERS = {"PLAIN": plain_server, "LOGIN": login_server, "CRAM-MD5": cram_server, "DIGEST-MD5": digest_server}
_CLIENTS = {"PLAIN": plain_client, "LOGIN": login_client, "CRAM-MD5": cram_client}


def server_machine(mechanism: str, names: ServerNames, initial: bytes | None) -> ServerMachine:
    """A server's side; raises KeyError for a mechanism that there is not."""
    if mechanism in HASHES:
        return scram_server(mechanism, names, initial)
    return _SERVERS[mechanism](names, initial)


def client_machine(mechanism: str, credentials: Credentials, host: str, service: str = "smtp") -> ClientMachine:
    """A client's side; raises KeyError for a mechanism that there is not."""
    if mechanism in HASHES:
        return scram_client(mechanism, credentials)
    if mechanism == "DIGEST-MD5":
        return digest_client(credentials, host, service)
    return _CLIENTS[mechanism](credentials)

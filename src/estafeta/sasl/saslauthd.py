"""saslauthd(8) asked whether a password is right: four counted strings over a unix socket, and ``OK`` or ``NO``.

Source: saslauthd(8), LDAP_SASLAUTHD of Cyrus SASL, observation of testsaslauthd. One connection for each question, as Cyrus has it.
"""

from __future__ import annotations

import asyncio

from estafeta.sasl.vocabulary import Identity, Unavailable

TIMEOUT_S = 30.0


def request(user: str, password: bytes, service: str, realm: str) -> bytes:
    """The question; raises ValueError for what has no place in it."""
    parts = (user.encode(), password, service.encode(), realm.encode())
    if any(len(part) > 65535 for part in parts):
        raise ValueError("too long for saslauthd")
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


async def check(path: str, identity: Identity, password: bytes, service: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Raises Unavailable."""
    realm = identity.realm if "@" in identity.name else ""
    try:
        question = request(identity.user, password, service, realm)
    except ValueError:
        return False
    # A task of its own: the time limit needs one.
    task = asyncio.get_running_loop().create_task(_ask(path, question, timeout_s))
    try:
        answer = await task
    except TimeoutError:
        raise Unavailable(f"saslauthd server {path}: timed out") from None
    except (OSError, asyncio.IncompleteReadError) as error:
        reason = getattr(error, "strerror", None) or "lost connection"
        raise Unavailable(f"cannot connect to saslauthd server: {reason}") from None
    if answer.startswith(b"OK"):
        return True
    if answer.startswith(b"NO"):
        return False
    raise Unavailable(f"saslauthd server {path}: unexpected answer")


async def _ask(path: str, question: bytes, timeout_s: float) -> bytes:
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(question)
            size = int.from_bytes(await reader.readexactly(2), "big")
            return await reader.readexactly(size)
        finally:
            writer.close()

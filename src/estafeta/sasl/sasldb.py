"""sasldb: the accounts that saslpasswd2(8) makes, an LMDB file (default /etc/sasldb2).

Source: saslpasswd2(8), Cyrus SASL's sysadmin guide (names of properties). Keys are ``user NUL realm NUL property``:
``userPassword`` is the password in clear, as CRAM-MD5 and DIGEST-MD5 need it; ``authPassword-sha256`` and ``-sha1`` are what
SCRAM keeps (``rounds$salt$StoredKey$ServerKey``, base64). An account without the first
(saslpasswd2 -n) can use PLAIN, LOGIN and SCRAM only.
Invariant: the file is opened with root's privileges; when it changed and cannot be opened again (jail, privileges), the old
contents stay until the master replaces the worker.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator

import lmdb

from estafeta.sasl.vocabulary import Account, Unavailable, Verifier
from estafeta.tables.index import OPEN_FILES, ForeignIndex, IndexFile

DEFAULT_PATH = "/etc/sasldb2"
PASSWORD = "userPassword"
VERIFIER = "authPassword-"  # and the name of a hash
HASH_NAMES = ("sha256", "sha1")


def entry_key(user: str, realm: str, name: str) -> bytes:
    """The key of one property."""
    return "\0".join((user, realm, name)).encode()


def write_verifier(verifier: Verifier) -> bytes:
    """As it is in the file."""
    fields = (verifier.salt, verifier.stored_key, verifier.server_key)
    return b"$".join((b"%d" % verifier.iterations, *map(base64.b64encode, fields)))


def read_verifier(text: bytes) -> Verifier:
    """Raises ValueError."""
    rounds, salt, stored, server = text.split(b"$")
    try:
        return Verifier(int(rounds), base64.b64decode(salt), base64.b64decode(stored), base64.b64decode(server))
    except binascii.Error as error:
        raise ValueError("bad verifier") from error


def foreign_text(path: str) -> str:
    """What to say of a file of Cyrus's."""
    return f"{path} was made by another program: move it away and make the accounts again with saslpasswd2"


class Sasldb:
    """The file, open for reading."""

    def __init__(self, path: str) -> None:
        """Never raises: a file that is not there is said when it is needed."""
        self.path = path
        self.problem = ""
        self._file: IndexFile | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._open()

    def _open(self) -> None:
        try:
            found = os.stat(self.path)
            stamp = (found.st_mtime_ns, found.st_ino, found.st_dev)
            if stamp == self._stamp:
                return
            fresh = OPEN_FILES.acquire(self.path)
        except PermissionError as error:
            # Without the privileges of the beginning: what was found out then holds, until the master replaces the worker.
            self.problem = self.problem or f"open {self.path}: {error.strerror}"
            return
        except OSError as error:
            self.problem = f"open {self.path}: {error.strerror}"
            return
        except ForeignIndex:
            self.problem = foreign_text(self.path)
            return
        except lmdb.Error as error:
            self.problem = f"open {self.path}: {error}"
            return
        if self._file is not None:
            OPEN_FILES.release(self._file)
        self._file, self._stamp, self.problem = fresh, stamp, ""

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            OPEN_FILES.release(self._file)
            self._file = None

    def find(self, user: str, realm: str) -> Account | None:
        """One account; raises Unavailable."""
        self._open()
        if self._file is None:
            raise Unavailable(self.problem)
        try:
            password = self._file.get(entry_key(user, realm, PASSWORD))
            verifiers = {}
            for name in HASH_NAMES:
                text = self._file.get(entry_key(user, realm, VERIFIER + name))
                if text is not None:
                    verifiers[name] = read_verifier(text)
        except (lmdb.Error, ValueError) as error:
            raise Unavailable(f"{self.path}: {error}") from None
        return Account(password, verifiers) if password is not None or verifiers else None


def list_entries(entries: dict[bytes, bytes]) -> Iterator[tuple[str, str, str]]:
    """(user, realm, property) of everything in the file."""
    for key in entries:
        parts = key.decode("utf-8", "replace").split("\0")
        if len(parts) == 3:
            yield parts[0], parts[1], parts[2]

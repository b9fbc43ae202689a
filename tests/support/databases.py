"""Real database servers for a test: each in a directory of its own, as a process of the test, on a socket and a port of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support.ports import free_port


def postgres_programs() -> Path | None:
    """Where PostgreSQL's programs are."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((place for place in reversed(places) if (place / "initdb").exists()), None)


def _accepts(place: Path | int) -> bool:
    family = socket.AF_INET if isinstance(place, int) else socket.AF_UNIX
    with socket.socket(family) as client:
        client.settimeout(1)
        try:
            client.connect(("127.0.0.1", place) if isinstance(place, int) else str(place))
        except OSError:
            return False
    return True


class Server:
    """A server process that can be stopped and started again."""

    def __init__(self, top: Path, argv: list[str], ready: Callable[[], bool], user: str = "") -> None:
        self.top = top
        self._argv = argv
        self._ready = ready
        self._user = user
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.top / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self._user or None,
                group=self._user or None, extra_groups=[] if self._user else None, start_new_session=True, cwd="/",
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while not self._ready():
            assert self.process.poll() is None, (self.top / "server.log").read_text()
            assert time.monotonic() < deadline, "the server does not come up"
            time.sleep(0.03)

    def stop(self, how: int = signal.SIGKILL) -> None:
        """End it and all its children."""
        if self.process is None:
            return
        os.killpg(self.process.pid, how)
        self.process.wait(20)
        self.process = None


def _top(kind: str) -> Path:
    # Paths of UNIX-domain sockets are short, and servers run as other users.
    top = Path(tempfile.mkdtemp(prefix=f"estafeta-{kind}-", dir="/tmp"))
    top.chmod(0o755)
    return top


class MariaDb(Server):
    """A MariaDB server: database ``mail``, user ``mail`` with password ``it's secret``."""

    def __init__(self) -> None:
        top = _top("mariadb")
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={top}/data", "--auth-root-authentication-method=normal",
             "--skip-test-db", "--user=root"],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        self.port = free_port()
        self.socket = top / "socket"
        super().__init__(
            top,
            ["mariadbd", "--no-defaults", "--user=root", f"--datadir={top}/data", f"--socket={self.socket}",
             f"--port={self.port}", "--bind-address=127.0.0.1", f"--pid-file={top}/pid", "--innodb-buffer-pool-size=16M",
             "--skip-name-resolve", "--character-set-server=utf8mb4"],
            lambda: _accepts(self.socket) and _accepts(self.port),
        )  # fmt: skip

    def sql(self, text: str) -> None:
        """Run statements as the administrator."""
        subprocess.run(
            ["mariadb", "--no-defaults", "--default-character-set=utf8mb4", "-S", str(self.socket), "-uroot"],
            input=text.encode(), check=True, capture_output=True, timeout=30,
        )  # fmt: skip


class Postgres(Server):
    """A PostgreSQL server: database ``mail``, user ``mail`` with password ``it's secret``; passwords on TCP, trust on the socket."""

    def __init__(self) -> None:
        programs = postgres_programs()
        assert programs is not None
        self._programs = programs
        top = _top("postgres")
        shutil.chown(top, "postgres")
        subprocess.run(
            [str(programs / "initdb"), "-D", f"{top}/data", "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256",
             "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
            check=True, capture_output=True, timeout=60, user="postgres", group="postgres", extra_groups=[], cwd="/",
        )  # fmt: skip
        self.port = free_port()
        self.directory = top
        self.socket = top / f".s.PGSQL.{self.port}"
        super().__init__(
            top,
            [str(programs / "postgres"), "-D", f"{top}/data", "-k", str(top), "-p", str(self.port), "-h", "127.0.0.1",
             "-c", "fsync=off", "-c", "shared_buffers=1MB"],
            lambda: _accepts(self.socket) and self._answers(),
            user="postgres",
        )  # fmt: skip

    def _answers(self) -> bool:
        return self._psql("postgres", "SELECT 1", check=False) == 0

    def _psql(self, database: str, text: str, check: bool = True) -> int:
        return subprocess.run(
            [str(self._programs / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory), "-p", str(self.port),
             "-U", "postgres", database],
            input=text.encode(), check=check, capture_output=True, timeout=30, cwd="/", env={**os.environ, "PGCLIENTENCODING": "UTF8"},
        ).returncode  # fmt: skip

    def sql(self, text: str, database: str = "mail") -> None:
        """Run statements as the administrator."""
        self._psql(database, text)


class Slapd(Server):
    """An OpenLDAP server: suffix ``dc=example,dc=org``, administrator ``cn=admin,dc=example,dc=org`` with password ``it's secret``."""

    NAME = "cn=admin,dc=example,dc=org"

    def __init__(self, entries: str) -> None:
        top = _top("slapd")
        (top / "db").mkdir()
        config = top / "slapd.conf"
        schemas = "\n".join(f"include /etc/ldap/schema/{name}.schema" for name in ("core", "cosine", "nis", "inetorgperson", "misc"))
        config.write_text(
            f"{schemas}\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {top}/pid\nallow bind_v2\nsizelimit unlimited\n"
            f'database mdb\nmaxsize 10485760\nsuffix "dc=example,dc=org"\nrootdn "{self.NAME}"\nrootpw "it\'s secret"\n'
            f"directory {top}/db\nindex objectClass eq\nindex mail eq\n"
        )
        ldif = top / "entries.ldif"
        ldif.write_text(entries)
        done = subprocess.run(
            ["slapadd", "-q", "-f", str(config), "-l", str(ldif)], check=False, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        self.port = free_port()
        self.socket = top / "ldapi"
        urls = f"ldap://127.0.0.1:{self.port}/ ldapi://{str(self.socket).replace('/', '%2F')}/"
        super().__init__(
            top, ["slapd", "-f", str(config), "-h", urls, "-d", "0"], lambda: _accepts(self.socket) and _accepts(self.port)
        )


class Memcached(Server):
    """A memcached."""

    def __init__(self) -> None:
        top = _top("memcached")
        self.port = free_port()
        super().__init__(
            top, ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-m", "8"],
            lambda: _accepts(self.port),
        )  # fmt: skip

"""nis: tables with the real ypserv and ypbind, beside Debian's postmap; in namespaces of the test's own.

Mail for aliases of a NIS map is delivered, too: the same aliases through ``sendmail`` and local(8).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

_NEEDED = ("unshare", "rpcbind", "ypserv", "ypbind", "/usr/lib/yp/makedbm", "/usr/sbin/postmap")
_NAMESPACES = ("unshare", "--uts", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")


def _missing() -> str | None:
    if os.geteuid():
        return "needs root"
    for one in _NEEDED:
        if not shutil.which(one):
            return f"{one} is not installed"
    tried = subprocess.run([*_NAMESPACES, "true"], capture_output=True, text=True, check=False)
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else None


_MISSING = _missing()

pytestmark = [
    pytest.mark.skipif(_MISSING is not None, reason=_MISSING or ""),
    pytest.mark.xdist_group("peers"),
]

# Its own network, host name, processes and mounts: nothing of it is seen outside, and all of it ends with the script.
SCRIPT = r"""
set -e
ip link set lo up
mount -t tmpfs none /var/yp; mount -t tmpfs none /run
mkdir -p /run/rpcbind /run/lock /var/yp/binding /var/yp/nis.test
domainname nis.test
echo 'domain nis.test server 127.0.0.1' > {top}/yp.conf
printf 'staff ann,bob\npostmaster root\n' | /usr/lib/yp/makedbm - /var/yp/nis.test/mail.aliases
printf 'joe joe:x:1000:1000::/home/joe:/bin/sh\n' | /usr/lib/yp/makedbm - /var/yp/nis.test/passwd.byname
printf 'mail 127.0.0.1\n' | /usr/lib/yp/makedbm - /var/yp/nis.test/ypservers
rpcbind -w -f & rpcbind=$!
for try in $(seq 50); do [ -S /run/rpcbind.sock ] && break; sleep 0.1; done
ypserv -d > {top}/ypserv.log 2>&1 & ypserv=$!
for try in $(seq 50); do grep -q 'inet,tcp' {top}/ypserv.log && break; sleep 0.1; done
ypbind -n -f {top}/yp.conf > {top}/ypbind.log 2>&1 & ypbind=$!
for try in $(seq 100); do [ -n "$(ls /var/yp/binding)" ] && ypmatch staff mail.aliases > /dev/null 2>&1 && break; sleep 0.1; done
ask() {{
    for who in "/usr/sbin/postmap" "{python} -m estafeta.commands.postmap"; do
        status=0
        answer=$(timeout 20 $who -c {top} -q "$1" "$2" 2> {top}/said) || status=$?
        echo "$3|$1|$2|$answer|$status"
    done
}}
for key in staff STAFF postmaster nobody 'two words' "quote'" ; do ask "$key" nis:mail.aliases up; done
ask joe nis:passwd.byname up
ask x nis:nosuchmap up
kill $ypserv; wait $ypserv 2> /dev/null || true
ask staff nis:mail.aliases down
kill $ypbind $rpcbind
"""


def test_beside_postmap() -> None:
    """The same answers; a server that is gone is an error, never "not found"."""
    top = Path(tempfile.mkdtemp(prefix="nis-"))
    top.chmod(0o755)
    try:
        (top / "main.cf").write_text("compatibility_level = 3.6\n")
        script = SCRIPT.format(top=top, python=sys.executable)
        environment = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        done = subprocess.run(
            [*_NAMESPACES, "bash", "-c", script],
            capture_output=True, text=True, timeout=120, check=False, env=environment,
        )  # fmt: skip
        lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") == 4]
        assert len(lines) == 18, (done.stdout, done.stderr, [path.read_text() for path in top.glob("*.log")])
        for postfix, ours in zip(lines[::2], lines[1::2], strict=True):
            assert ours == postfix
        answers = {(when, key, table): (answer, status) for when, key, table, answer, status in lines}
        assert answers["up", "staff", "nis:mail.aliases"] == ("ann,bob", "0")
        assert answers["up", "STAFF", "nis:mail.aliases"] == ("ann,bob", "0")
        assert answers["up", "nobody", "nis:mail.aliases"] == ("", "1")
        assert answers["up", "joe", "nis:passwd.byname"][0].startswith("joe:x:1000:")
        assert answers["down", "staff", "nis:mail.aliases"] == ("", "1")
        assert re.search(r"query error", (top / "said").read_text()), "an error, not an empty answer"
    finally:
        shutil.rmtree(top, ignore_errors=True)

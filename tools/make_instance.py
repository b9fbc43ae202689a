"""Write a private instance into a directory: what ``make run`` starts. Needs no root; an existing instance is kept.

Usage: make_instance.py DIRECTORY [PORT]. Any address at localhost (or at the instance's host name) gets a Maildir.
"""

from __future__ import annotations

import grp
import os
import pwd
import sys

MAIN_CF = """\
# A private instance of Estafeta, written by `make run`. Change it as you like: `make run` keeps it.
compatibility_level = 3.6
queue_directory = {directory}/spool
data_directory = {directory}/data
mail_owner = {user}
setgid_group = {group}
maillog_file = /dev/stdout

myhostname = estafeta.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
default_transport = error:5.1.2 this private instance delivers to Maildirs only
alias_maps = hash:{directory}/etc/aliases
alias_database = hash:{directory}/etc/aliases

# Any address at these domains has a Maildir.
virtual_mailbox_domains = $myhostname, localhost, localhost.localdomain
virtual_mailbox_maps = regexp:{directory}/etc/mailboxes
virtual_alias_maps = hash:{directory}/etc/aliases
virtual_mailbox_base = {directory}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""

MASTER_CF = """\
# service        type       private unpriv chroot wakeup maxproc command
127.0.0.1:{port} inet       n       -      n      -      -       smtpd
pickup           unix       n       -      n      60     1       pickup
cleanup          unix       n       -      n      -      0       cleanup
qmgr             unix       n       -      n      300    1       qmgr
rewrite          unix       -       -      n      -      -       trivial-rewrite
bounce           unix       -       -      n      -      0       bounce
defer            unix       -       -      n      -      0       bounce
trace            unix       -       -      n      -      0       bounce
showq            unix       n       -      n      -      -       showq
error            unix       -       -      n      -      -       error
retry            unix       -       -      n      -      -       error
discard          unix       -       -      n      -      -       discard
smtp             unix       -       -      n      -      -       smtp
relay            unix       -       -      n      -      -       smtp
local            unix       -       n      n      -      -       local
virtual          unix       -       n      n      -      -       virtual
lmtp             unix       -       -      n      -      -       lmtp
postlog          unix-dgram n       -      n      -      1       postlogd
"""

ALIASES = """\
# aliases(5). After a change: newaliases -c {directory}/etc (or: postalias {directory}/etc/aliases)
postmaster: root
mailer-daemon: postmaster
abuse: postmaster
"""

MAILBOXES = """\
# regexp_table(5): the part before the @ names the Maildir.
/^([a-z0-9][a-z0-9._=-]*)(\\+[^@]*)?@/ ${{1}}/
"""


def _user_name() -> str:
    """The caller's name; the number where there is no such account (containers run with any uid)."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group_name() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())


def main() -> int:
    """Exit status 0, or 2 for bad usage."""
    if len(sys.argv) not in (2, 3):
        sys.stderr.write("usage: make_instance.py DIRECTORY [PORT]\n")
        return 2
    directory = os.path.abspath(sys.argv[1])
    port = sys.argv[2] if len(sys.argv) == 3 else "2525"
    etc = os.path.join(directory, "etc")
    os.makedirs(etc, exist_ok=True)
    os.makedirs(os.path.join(directory, "mail"), exist_ok=True)
    values = {
        "directory": directory,
        "port": port,
        "user": _user_name(),
        "group": _group_name(),
        "uid": str(os.geteuid()),
        "gid": str(os.getegid()),
    }
    for name, text in (("main.cf", MAIN_CF), ("master.cf", MASTER_CF), ("aliases", ALIASES), ("mailboxes", MAILBOXES)):
        path = os.path.join(etc, name)
        if not os.path.exists(path):
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text.format(**values))
    print(etc)
    return 0


if __name__ == "__main__":
    sys.exit(main())

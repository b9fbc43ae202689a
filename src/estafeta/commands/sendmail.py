"""sendmail(1): the command by which programs hand in mail, and the door to mailq, newaliases and queue runs.

Source: sendmail(1). ``sendmail_options`` reads the command line, ``sendmail_message`` the message, ``sendmail_smtp`` is
``-bs``; ``spool.maildrop`` makes it safe. Every failure is one line on standard error and exit status 75 (try again), as
Postfix has it: a program that sends mail must not take any of them for a delivery failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from estafeta.commands.sendmail_message import MessageError, read_message, recipients_in_headers
from estafeta.commands.sendmail_options import Options, UsageError, read_options
from estafeta.config.config import Config, load_config
from estafeta.config.errors import ConfigError

EX_OK = 0
EX_TEMPFAIL = 75


def main(argv: Sequence[str] | None = None) -> int:
    """Run sendmail with ``argv`` (without the program's name); the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    program = os.path.basename(sys.argv[0] or "sendmail") if argv is None else "sendmail"
    if program == "newaliases":
        arguments.insert(0, "-bi")
    elif program == "mailq":
        arguments.insert(0, "-bp")
    try:
        return _run(read_options(arguments, warn))
    except UsageError as error:
        for line in error.notes:
            sys.stderr.write(f"sendmail: {line}\n")
        return fatal(str(error))
    except (ConfigError, MessageError, OSError) as error:
        return fatal(str(error))
    except KeyboardInterrupt:
        return EX_TEMPFAIL


def warn(text: str) -> None:
    """A warning to the user."""
    sys.stderr.write(f"sendmail: warning: {text}\n")


def fatal(text: str) -> int:
    """Say what is wrong; the exit status."""
    sys.stderr.write(f"sendmail: fatal: {text}\n")
    return EX_TEMPFAIL


def _run(options: Options) -> int:
    directory = options.config_directory
    if directory:
        os.environ["MAIL_CONFIG"] = directory
    if options.mode == "list":
        return _postqueue(["-p"])
    if options.mode == "flush":
        return _postqueue(["-f"])
    if options.mode == "flush_id":
        return _postqueue(["-i", options.argument])
    if options.mode == "flush_site":
        return _postqueue(["-s", options.argument])
    if options.mode == "nothing":
        return EX_OK
    if options.mode == "aliases":
        return _aliases(options)
    if options.mode == "daemon":
        from estafeta.commands.postfix import main as postfix

        return postfix(["start"])
    config = load_config(directory or None)
    if options.mode == "smtp":
        from estafeta.commands.sendmail_smtp import StandardInputSession

        return StandardInputSession(config, login_name(), sys.stdin.buffer, sys.stdout.buffer).run()
    return _enqueue(options, config)


def _postqueue(arguments: list[str]) -> int:
    from estafeta.commands.postqueue import main as postqueue

    return postqueue(arguments)


def _aliases(options: Options) -> int:
    if options.argument:
        from estafeta.commands.postalias import main as postalias

        return postalias([options.argument])
    from estafeta.commands.newaliases import rebuild

    return rebuild(options.config_directory or None)


def login_name() -> str:
    """The name of the user who runs this; their number when they have none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def full_name() -> str:
    """What the password file says: the first part of the comment, ``&`` standing for the capitalised login name."""
    import pwd

    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return ""
    return entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize())


def is_authorized(config: Config, login: str) -> bool:
    """authorized_submit_users; raises OSError when a table cannot be asked."""
    value = config.get("authorized_submit_users")
    if value.strip() == "static:anyone":
        return True
    import pwd

    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        login = "unknown"
    from estafeta.system.immediate import WouldWait, run_now
    from estafeta.tables.match_list import StringList
    from estafeta.tables.table import LookupFailed, OpenOptions

    try:
        options = OpenOptions(warn=warn, parameter=config.lookup)
        users = StringList(value, options, "authorized_submit_users")
        try:
            return run_now(users.match(login))
        except WouldWait:
            import asyncio

            return asyncio.run(users.match(login))
    except LookupFailed as error:
        raise OSError(str(error)) from None


def _enqueue(options: Options, config: Config) -> int:
    import time

    from estafeta.mail.maildrop import Submission, encode
    from estafeta.spool.maildrop import SubmitError, submit

    login = login_name()
    who = f"{login}({os.getuid()})"
    if not is_authorized(config, login):
        return fatal(f"User {who} is not allowed to submit mail")
    recipients = [address or os.fsencode(config.get("empty_address_recipient")) for address in options.recipients]
    if not recipients and not options.from_headers:
        return fatal(f"{who}: Recipient addresses must be specified on the command line or via the -t option")
    name = options.full_name if options.full_name is not None else os.environ.get("NAME") or full_name()
    sender = os.fsencode(login) if options.sender is None else options.sender
    content: bytes | None
    if options.verify:
        content = _probe(sender, recipients)
    else:
        limit = config.size("message_size_limit")
        content = read_message(
            sys.stdin.buffer,
            dot_ends=not options.ignore_dots,
            fix_line_endings=config.get("sendmail_fix_line_endings").lower(),
            limit=limit,
        )
        if content is None:
            return fatal(f"{os.fsdecode(sender)}({os.getuid()}): message file too big")
        if options.from_headers:
            recipients += recipients_in_headers(content)
            if not recipients:
                return fatal(f"{who}: No recipient addresses found in message header")
    submission = Submission(
        sender,
        recipients,
        content,
        time.time(),
        os.getuid(),
        os.fsencode(name),
        "remote" if options.gateway else "local",
        options.body,
        options.notify,
        options.ret,
        options.envid,
        options.trace,
    )
    try:
        submit(config.get("queue_directory"), encode(submission))
    except SubmitError as error:
        return fatal(f"{who}: {error}")
    if options.trace:
        print(f"Mail Delivery Status Report will be mailed to <{os.fsdecode(sender)}>.")
    return EX_OK


def _probe(sender: bytes, recipients: list[bytes]) -> bytes:
    """The message that ``-bv`` does not deliver."""
    from estafeta.mail.address import quote_address

    to = b",\r\n\t".join(quote_address(recipient) for recipient in recipients)
    return b"From: " + quote_address(sender) + b"\r\nSubject: probe\r\nTo:\t" + to + b"\r\n"


if __name__ == "__main__":
    sys.exit(main())

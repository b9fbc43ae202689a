"""`postconf -a`, `-A`, `-l`, `-m`, `-T`: what this installation can do.

Source: postconf(1).
"""

from __future__ import annotations

from estafeta.commands.postconf.options import Options, UsageError
from estafeta.commands.postconf.show_main import load, warn

_FIXED = {"a": ("cyrus", "dovecot"), "A": ("cyrus",), "l": ("flock", "fcntl", "dotlock")}


def show_list(options: Options) -> int:
    """Print the list that the option asks for; the exit status."""
    if options.mode in _FIXED:
        print("\n".join(_FIXED[options.mode]))
        return 0
    if options.mode == "m":
        load(options)
        from estafeta.tables import table_types

        print("\n".join(table_types()))
        return 0
    if options.mode == "T":
        return _tls(options.tls_mode)
    raise UsageError(f"option -{options.mode} (bounce templates) is not available here")


def _tls(mode: str) -> int:
    if mode in ("compile-version", "run-version"):
        import ssl

        print(ssl.OPENSSL_VERSION)
    elif mode == "public-key-algorithms":
        print("dsa\necdsa\nrsa")
    else:
        warn(f"unknown 'postconf -T' mode: {mode}")
        return 1
    return 0

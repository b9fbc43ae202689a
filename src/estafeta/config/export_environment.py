"""What programs of others may see of our environment.

Source: postconf(5) export_environment.
"""

from __future__ import annotations

import os

from estafeta.config.config import Config


def exported_environment(config: Config) -> dict[str, str]:
    """The environment for commands: the named variables, and a PATH; MAIL_CONFIG names the directory in use."""
    names = config.words("export_environment")
    found = {"PATH": "/usr/bin:/bin"}
    for name in names:
        key, equals, value = name.strip("{} ").partition("=")
        key = key.strip()
        if equals:
            found[key] = value.strip()
        elif key in os.environ:
            found[key] = os.environ[key]
    if "MAIL_CONFIG" in names:
        found["MAIL_CONFIG"] = config.directory
    return found

"""What is wrong in main.cf and master.cf, looked for before the system starts and before it takes a new configuration.

Invariant: after `verify_configuration` has returned there is no fatal problem that `postfix check` would name.
"""

from __future__ import annotations

from estafeta.config.config import load_config
from estafeta.config.errors import ConfigError
from estafeta.config.programs import KNOWN_PROGRAMS
from estafeta.config.settings_check import check_configuration
from estafeta.sasl.check import sasl_problems
from estafeta.system.log import Log
from estafeta.tables.availability import table_problems
from estafeta.tls.check import tls_problems


def verify_configuration(directory: str, log: Log) -> None:
    """Log every warning; raise ConfigError for the first fatal problem."""
    problems = check_configuration(directory, KNOWN_PROGRAMS)
    for problem in problems:
        if problem.severity == "fatal":
            raise ConfigError(problem.text, problem.path or None, problem.line or None)
    config = load_config(directory)
    for problem in (*problems, *table_problems(config), *tls_problems(config), *sasl_problems(config)):
        log.warning(str(problem).removeprefix("warning: "))

"""main.cf, master.cf and the parameter registry.

The way in: `load_config` gives a `Config`; `load_master_cf` the services; both raise `ConfigError`.
"""

from estafeta.config.config import Config, default_config, load_config
from estafeta.config.errors import ConfigError, ConfigProblem

__all__ = ["Config", "ConfigError", "ConfigProblem", "default_config", "load_config"]

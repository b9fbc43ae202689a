"""SASL: the mechanisms as machines, where passwords are checked, and what a configuration offers. RFC 4422, RFC 4954."""

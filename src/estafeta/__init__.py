"""Estafeta: a Postfix-compatible mail transfer agent."""

"""Measures Estafeta against Postfix on this machine, in alternation. See docs/performance.md."""

"""Asynchronous DNS look-ups."""

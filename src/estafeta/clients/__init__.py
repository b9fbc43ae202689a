"""Typed stubs, one per internal service."""

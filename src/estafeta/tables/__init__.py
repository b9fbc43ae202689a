"""Lookup tables behind one interface."""

"""Frames, messages and connections between Estafeta's own processes."""

"""Conductor side of each engine; see ``base`` for the protocol."""

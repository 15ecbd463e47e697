"""Adapters for families of devices; see ``base`` for the protocol."""

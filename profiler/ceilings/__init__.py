"""Ceilings: what a device itself can do, measured by probes in the engine's own process."""

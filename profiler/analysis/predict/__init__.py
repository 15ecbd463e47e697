"""Throughput, latency, memory and power on hardware that is not here, with intervals."""

"""What runs under the engine's own interpreter: standard library and the engine only, Python 3.9 syntax."""

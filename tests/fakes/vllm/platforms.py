"""See the package."""

from types import SimpleNamespace

current_platform = SimpleNamespace(device_name="cpu")

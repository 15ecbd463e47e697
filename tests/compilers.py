"""Whether the native kernels can be tested here."""

from profiler.worker import native


def has_compiler() -> bool:
    """Whether a C++ compiler is here; what it makes of the kernels is for the tests to say."""
    try:
        native.find_compiler()
    except native.NativeError:
        return False
    return True

"""aiprof: what a machine really does with open LLMs."""

__version__ = "0.1.0"

"""A container engine in Python, built step by step, that its students can rebuild."""

__version__ = "0.1.0"

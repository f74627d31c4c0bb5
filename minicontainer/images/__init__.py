"""Root file systems by name."""

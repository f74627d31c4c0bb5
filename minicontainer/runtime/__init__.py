"""One container out of one specification: which step, when, in which process."""

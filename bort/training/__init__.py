"""The loops: they know an Engine and never a framework."""

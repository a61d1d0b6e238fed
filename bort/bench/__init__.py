"""Benchmarks: what is timed is verified first; a table for people, one JSON line for programs."""

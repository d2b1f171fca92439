"""Measurements: each module is a command, `python -m experiments.benchmarks.NAME --help`."""

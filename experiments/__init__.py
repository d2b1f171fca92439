"""Experiment files: each returns the ConfigDict of one result. `base.py` holds every key."""

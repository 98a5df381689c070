"""Prefect flows that are run or scheduled, one per file."""

import os

# Prefect's client tells its makers of its imports unless asked not to, server or none.
os.environ.setdefault("DO_NOT_TRACK", "1")

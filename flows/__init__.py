"""Prefect flows: what is run or scheduled, one a file."""

"""Frozen networks: the table, their weights, and where they can be cut."""

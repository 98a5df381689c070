"""Kinds of targets: one object per kind, which stages ask instead of branching."""

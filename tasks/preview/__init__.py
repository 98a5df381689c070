"""Predict what a run would do: hits and misses, bytes, seconds.

A configuration goes in; `headstart plan` and `headstart why` come out. Read `expected_hits` first.
"""

"""What a run would do, before it does it: hits and misses, bytes, seconds.

A configuration goes in; `headstart plan` and `headstart why` come out. Read `expected_hits` first.
"""

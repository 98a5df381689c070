"""Which model is in use: versions under names, and promotion of what is better.

Finished runs go in; promoted models come out. Read `registry` first.
"""

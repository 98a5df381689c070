"""The model registry: named, versioned models, and promotion of better ones.

Finished runs go in; promoted models come out. Read `registry` first.
"""

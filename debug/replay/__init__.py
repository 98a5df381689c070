"""Crash bundles: the failing steps of a training, recorded, and taken again elsewhere.

A training goes in; a bundle and, from its replay, a diagnosis come out. Read `recorder`
first, then `replay`.
"""

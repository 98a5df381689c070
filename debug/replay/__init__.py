"""Crash bundles: record the failing training steps, and replay them elsewhere.

A training goes in; a bundle and, from its replay, a diagnosis come out. Read `recorder`
first, then `replay`.
"""

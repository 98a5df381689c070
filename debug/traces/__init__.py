"""Profiles, graphs and sessions, and TensorBoard to show them.

A training or a session goes in; numbers and pages come out. Read `profile` first.
"""

"""Preflight: what costs hours of training, found in seconds before it.

A model and some of its data go in; diagnoses come out. Read `run` first.
"""

"""Preflight: find faults in model and data within seconds, before training.

A model and some of its data go in; diagnoses come out. Read `run` first.
"""

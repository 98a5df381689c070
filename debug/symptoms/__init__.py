"""Symptom rules: find faults by how a training progresses.

The record of a training (`trace`) goes in; diagnoses come out. Read `callback` first, then a
rule, such as `loss`.
"""

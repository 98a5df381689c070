"""Symptom rules: what the course of a training says of its faults.

The record of a training (`trace`) goes in; diagnoses come out. Read `callback` first, then a
rule, such as `loss`.
"""

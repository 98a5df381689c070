"""How a stage runs: its key, its Prefect task, its workers, its devices.

A plain function goes in; a cached task comes out. Read `stage` first.
"""

"""Run a user's script under the debugger, with a process for each rung of the ladder.

A script goes in; what broke it comes out, as diagnoses. Read `ladder` first, then `child`.
"""

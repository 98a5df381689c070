"""Debugger V2 dumps: recorded, read back, and searched for the first bad op.

A dump folder goes in; the op, the layer and the user's line come out. Read `dump` first,
then `rootcause`.
"""

"""The text of a user's program: where a value comes from, which loop holds what.

A file and a line go in; what stands around it comes out, to point at what is to change. Read
`syntax`.
"""

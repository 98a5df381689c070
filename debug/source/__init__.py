"""Read a user's source code: where a value comes from, and which loop encloses a line.

A file and a line go in; what stands around it comes out, to point at what is to change. Read
`syntax`.
"""

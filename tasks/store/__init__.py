"""The store: artefacts under content keys, and rows in TFRecord shards.

Bytes and their keys go in; whole, checked files come out, or a reason why not. Read
`artifacts` first (one artefact a key), then `records` (rows in shards), then `row_index`.
"""

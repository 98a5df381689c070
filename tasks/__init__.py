"""The stages of the pipeline, in data order: one module per stage."""

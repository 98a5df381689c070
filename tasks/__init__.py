"""The stages of the pipeline, in data order: one module a stage."""

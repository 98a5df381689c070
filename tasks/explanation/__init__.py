"""Heatmaps of the evidence that a model finds for a class, laid over the image."""

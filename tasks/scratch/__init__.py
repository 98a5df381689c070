"""Training from scratch, against the clock, on views that were computed beforehand."""

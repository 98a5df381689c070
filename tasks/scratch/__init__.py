"""Training from scratch, within a time budget, on precomputed views."""

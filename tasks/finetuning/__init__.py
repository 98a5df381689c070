"""From a trained head down into the backbone: rungs, and what each of them buys."""

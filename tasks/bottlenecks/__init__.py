"""From views to bottlenecks: one pass of the backbone, kept and checked."""

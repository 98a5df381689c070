"""From bottlenecks to a trained head."""

"""Which backbone, which cut, which source: scores from cached bottlenecks, checked by heads."""

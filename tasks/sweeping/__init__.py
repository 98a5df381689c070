"""From bottlenecks to the best of many heads, trained all at once."""

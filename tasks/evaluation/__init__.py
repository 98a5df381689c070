"""From a head to figures, and the report of them."""

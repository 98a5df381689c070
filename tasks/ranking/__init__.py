"""Rank backbones, cuts and sources by scores from cached bottlenecks, and check them with heads."""

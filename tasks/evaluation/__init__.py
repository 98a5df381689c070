"""From a head to its metrics and their report."""

"""Measure speed, size and accuracy of the exported files of a run on this machine."""

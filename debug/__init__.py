"""Debugging helpers for any TensorFlow program."""

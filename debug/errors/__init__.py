"""Explain what TensorFlow and Keras raise: the symptom, the layer, the user's line.

An exception goes in; a diagnosis comes out. Read `exceptions` first.
"""

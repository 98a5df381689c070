"""What TensorFlow and Keras raise, in short: the symptom, the layer, the user's line.

An exception goes in; a diagnosis comes out. Read `exceptions` first.
"""

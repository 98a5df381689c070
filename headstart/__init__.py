"""headstart: a folder of images to a trained classifier, from cached bottlenecks."""

__version__ = "0.1.0"

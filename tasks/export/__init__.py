"""From a head to a model in one file, and what it says of images."""

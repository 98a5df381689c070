"""Find the images of a collection that are similar to another image."""

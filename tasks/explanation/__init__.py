"""Where a model looked: heatmaps of its evidence for a class, over the image."""

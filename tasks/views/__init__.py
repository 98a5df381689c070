"""From images to views: resized and augmented pixels, in the store."""

"""What may be wrong with images and labels, from cached bottlenecks and views."""

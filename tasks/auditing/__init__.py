"""Find suspicious images and labels, from cached bottlenecks and views."""

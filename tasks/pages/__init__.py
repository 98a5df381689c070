"""Pages and folders of the flows that look into data and networks."""

"""From a head to exported model files, and their predictions."""

"""From image files to an index: find, decode, label, split."""

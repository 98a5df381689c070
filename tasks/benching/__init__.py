"""How fast, how large and how right the exported files of a run are on this machine."""

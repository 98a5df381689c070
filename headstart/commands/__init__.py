"""The commands, a module for each group; headstart.cli puts them together."""

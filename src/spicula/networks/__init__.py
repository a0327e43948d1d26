"""One file for each network family (torch)."""

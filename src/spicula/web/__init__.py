"""The second door: a server for readers' screens and for other systems, local by default."""

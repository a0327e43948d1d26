"""Image files in, one Volume out."""

"""Pure functions from volumes to volumes and patches."""

"""Run a bundle's networks; nothing else knows which runtime it is."""

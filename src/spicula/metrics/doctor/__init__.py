"""The evaluation doctor: what is wrong with predictions before they are scored, and what would mend it."""

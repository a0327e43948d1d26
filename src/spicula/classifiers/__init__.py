"""One file for each predictor."""

"""The types that every other part knows, on numpy and the standard library alone."""

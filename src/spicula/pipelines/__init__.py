"""The jobs: the only place where parts meet."""

"""One file for each way to find nodules."""

"""One file for each data set; all yield Cases."""

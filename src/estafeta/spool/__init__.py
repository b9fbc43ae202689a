"""The mail queue: journal segments for the young, files for the old."""

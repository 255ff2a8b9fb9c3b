"""From token files to batches: a weighted mixture, windows on it, rows of conversations."""

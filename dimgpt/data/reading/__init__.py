"""From token files to batches: other files draw rows, `batch.py` makes batches of them."""

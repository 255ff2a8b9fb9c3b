"""From token files to batches: `pretraining` and `finetuning` draw rows, `batch` hands them out."""

"""Batches and a model -> a better model. The trainer owns time: steps, schedule, checkpoints."""

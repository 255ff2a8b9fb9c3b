"""Trains a model on batches: optimizer steps, learning-rate schedule, checkpoints."""

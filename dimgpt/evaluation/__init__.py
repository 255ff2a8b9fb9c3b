"""Measures a model on held-out data."""

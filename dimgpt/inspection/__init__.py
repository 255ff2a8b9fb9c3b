"""Looks inside a model: token probabilities, attention, and passages of its training files."""

"""Looks inside a model: its expectations, its attention, and passages that it has read before."""

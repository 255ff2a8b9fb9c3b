"""A model and held-out data -> numbers."""

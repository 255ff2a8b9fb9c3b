"""Serves models to others: an API for programs."""

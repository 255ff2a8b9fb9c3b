"""Serves models to others: a page for people, an API for programs."""

"""Generates tokens, text and conversations from a model and a prompt."""

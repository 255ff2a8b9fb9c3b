"""Serves models: a web page for people, an API for programs."""

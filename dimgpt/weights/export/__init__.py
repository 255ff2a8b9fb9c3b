"""Exports models as folders that other programs open without dimgpt."""

"""Models for other programs, as folders that those open without our code."""

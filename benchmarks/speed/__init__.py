"""Clocks, training loops and checks for the benchmarks of training. Not part of the package."""

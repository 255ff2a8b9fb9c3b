"""The steps from a preset to a model, shared by the notebooks and the command line.

Each step reads the results of earlier steps from `data/` and `models/`, and skips finished work.
The other packages compute; this package decides which files they read and write.
"""

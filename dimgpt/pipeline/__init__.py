"""The steps from a preset to a model, shared by the notebooks and the command line.

Each step finds in `data/` and `models/` what the steps before it made, and keeps what is finished.
The other packages compute; this one decides which files they read and write.
"""

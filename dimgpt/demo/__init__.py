"""The demo: a small French world, questions about it, their score, and the run of the notebooks.

The world is `corpus`, made of `stories` and `questions` with the words of `lexicon` and the rules
of `grammar`. Of the real path, only the source `demo://` imports it.
"""

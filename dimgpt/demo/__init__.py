"""The demo: a small French world, questions about it, and their score.

The world is `corpus`: `stories` that follow `plots`, and questions, many of them about `facts`. Its
words are those of `lexicon`, its rules those of `grammar`. `small_talk` is for models of real
French. The data pipeline imports it for sources named `demo://` only.
"""

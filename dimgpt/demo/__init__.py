"""The demo: a small French world, questions about it, and their score.

The world is `corpus`, made of `stories` and questions with the words of `lexicon` and the rules of
`grammar`. The data pipeline imports it for sources named `demo://` only.
"""

"""Offers the toy training of `toy_training.py` to the tests of this folder."""

from toy_training import config, make_trainer, one_thread

__all__ = ["config", "make_trainer", "one_thread"]

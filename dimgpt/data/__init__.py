"""From text to batches.

sources · demo_corpus → encoding · preparation → token_file · manifest → corpus (weighted mixture) →
segments · pretraining · finetuning (with conversation's loss weights) → batch.
"""

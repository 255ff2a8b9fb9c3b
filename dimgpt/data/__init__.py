"""From text to batches, by way of token files.

preparing/      text → token files, once
token_file · token_writer · manifest   what lies on the disk between the two
reading/        token files → batches, as a function of the step
conversations/  roles and loss weights, for both
"""

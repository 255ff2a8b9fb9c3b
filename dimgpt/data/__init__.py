"""From text to batches, by way of token files.

preparing/      text → token files, once
token_file · token_writer   what lies on the disk between the two
reading/        token files → batches, as a function of the step
conversation · records      roles, loss weights, and the forms in which records hold them
"""

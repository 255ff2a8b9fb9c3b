"""From text to token files to batches.

preparing/      text → token files, once
token_file · token_writer   the format of token files
reading/        token files → batches, as a function of the step
conversation · records      roles, loss weights, and the forms of records
"""

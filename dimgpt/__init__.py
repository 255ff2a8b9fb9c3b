"""Train a language model from scratch: text -> data -> model -> training -> generation.

The folders are the pipeline, and imports only go from the right of it to the left:

    text/        raw text -> clean text -> token ids
    data/        documents and conversations -> token files -> batches
    model/       token ids -> logits; never sees text, a path or a print
    weights/     models on disk: our folders, and the files of other systems
    training/    batches + model -> a better model, resumable at any time
    generation/  model + prompt -> text and chat
    evaluation/  model + held-out data -> numbers
    config/      every setting; presets/, the published tables of them
    runtime.py   device, precision, memory: the only file that asks for a GPU
    pipeline/    the steps that the notebooks and the command line share
"""

__version__ = "0.1.0"

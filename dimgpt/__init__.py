"""Train a language model from scratch: text -> data -> model -> training -> generation.

The folders follow this pipeline. A folder imports only folders to its left in the pipeline:

    text/        raw text -> clean text -> token ids
    data/        documents and conversations -> token files -> batches
    model/       token ids -> logits; reads no text and no files, and prints nothing
    weights/     models on disk: dimgpt's folders, and the files of other systems
    training/    batches + model -> a trained model, resumable at any time
    generation/  model + prompt -> text and chat
    evaluation/  model + held-out data -> metrics
    config/      all settings; presets/ has published sets of them
    runtime.py   device, precision, memory: the only file that selects a GPU
    pipeline/    the steps that the notebooks and the command line share
"""

__version__ = "0.1.0"

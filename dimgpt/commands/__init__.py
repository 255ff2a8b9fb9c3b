"""The verbs of the command line, with the module and a line of help for each.

A verb is a dataclass: its fields are its flags, and `run` calls the same functions of `pipeline/`
as the notebooks. Its module is imported when the verb is used, so that listing all verbs is fast.
"""

VERBS = {
    "prepare": ("data.Prepare", "Train the vocabulary and write the token files; resumable."),
    "merge": ("data.Merge", "Join the shares that `prepare --shard I/N` wrote."),
    "import-data": ("data.ImportData", "Copy token files of DimensionGPT, with their vocabulary."),
    "train": ("training.Train", "Train a new model on the documents; resumable."),
    "finetune": ("training.Finetune", "Train the pretrained model on conversations; resumable."),
    "prefer": ("training.Prefer", "Train the fine-tuned model on preferences (DPO); resumable."),
    "resume": ("training.Resume", "Continue a run of any stage with its own settings."),
    "compare": ("comparison.Compare", "Plot several runs together, and list their differences."),
    "evaluate": ("training.Evaluate", "Measure a model on all held-out documents."),
    "generate": ("models.Generate", "Complete a text."),
    "chat": ("chat.Chat", "Talk with a fine-tuned model; type /help for its commands."),
    "serve": ("serving.Serve", "Serve a model to other programs; the API is like OpenAI's."),
    "web": ("serving.Web", "Serve a web page to talk with models and to look inside them."),
    "export": ("models.Export", "Write a model for transformers, llama.cpp or DimensionGPT."),
    "doctor": ("doctor.Doctor", "Find problems of this machine, the data, models and runs."),
    "verify": ("doctor.Verify", "Check a model and all it was made from against their hashes."),
    "info": ("models.Info", "Show this machine, and the sizes of a preset or of a model folder."),
    "download": ("models.Download", "Fetch a model from the Hugging Face hub; resumable."),
    "import": (
        "models.Import",
        "Convert DimensionGPT, lilLM, toyGPT, Llama, Mistral or Qwen3 weights.",
    ),
    "demo": ("models.Demo", "Run the three notebooks on the demo corpus."),
}
"""Verb -> its module and class, and its line of help."""

"""What the three original systems leave on a disk, at toy size."""

import json
import pickle
import re
from pathlib import Path

import numpy as np
import torch

from dimgpt.text.greedy_tokenizer import GreedyTokenizer

FIXTURES = Path(__file__).parent / "fixtures"


def write_dimensiongpt_data(folder: Path, vocabulary: Path) -> Path:
    """Write a data folder of DimensionGPT with one source, one group and the vocabulary."""
    tokenizer = GreedyTokenizer.load(vocabulary)
    texts = [f"le chat {number} dort dans la cour et mange" for number in range(20)]
    documents = [tokenizer.enclose(tokenizer.encode_array(text)).tolist() for text in texts]
    web, talk = folder / "pretraining" / "web", folder / "finetuning"
    web.mkdir(parents=True)
    talk.mkdir()
    for name, part in (("train", documents[:18]), ("val", documents[18:])):
        starts = np.cumsum([0, *map(len, part)]).tolist()
        index = [{"start": s, "size": len(ids)} for s, ids in zip(starts, part, strict=False)]
        np.array(sum(part, []), dtype="<u2").tofile(web / f"{name}.bin")
        (web / f"{name}_ids.pkl").write_bytes(pickle.dumps(index))
    sizes = {"train": sum(map(len, documents[:18])), "val": sum(map(len, documents[18:]))}
    (web / "metadata.pkl").write_bytes(pickle.dumps({"size": sizes, "multiplier": 0.3}))
    special = tokenizer.special_tokens
    pairs = [[special.user, 20 + n, special.assistant, 40 + n] for n in range(9)]
    for kind, content in (("conversations", pairs), ("preprompts", [[special.system, 30]])):
        (talk / f"human_{kind}_train.pkl").write_bytes(pickle.dumps(content))
    (folder / "vocab.txt").write_bytes(vocabulary.read_bytes())
    return folder


def write_dimensiongpt_run(folder: Path) -> None:
    """Write the `output/` of a DimensionGPT that was stopped after one step, with a loss of 6.25.

    The step had no gradient.
    """
    weights = torch.load(FIXTURES / "dimensiongpt" / "tiny.pt", weights_only=True)
    (folder / "last").mkdir(parents=True)
    torch.save(weights, folder / "last" / "model.pt")
    matrices = [w for name, w in weights.items() if w.dim() == 2 and name != "final_linear.weight"]
    for matrix in matrices:
        matrix.requires_grad_().grad = torch.zeros_like(matrix)
    optimizer = torch.optim.AdamW(matrices)
    optimizer.step()
    torch.save(optimizer.state_dict(), folder / "last" / "optimizer.pt")
    names = ("time", "tokens", "epochs", "accuracy", "val_loss", "val_accuracy")
    metrics = {name: [0.5] for name in names} | {"step": [1], "tokens": [130], "loss": [6.25]}
    (folder / "metrics.pkl").write_bytes(pickle.dumps(metrics))


def write_dimensiongpt_weights(path: Path) -> None:
    """Write weights with the published number of heads, which the file itself does not say."""
    weights = torch.load(FIXTURES / "dimensiongpt" / "tiny.pt", weights_only=True)
    path.parent.mkdir(parents=True)
    # 4 of 16 heads are for keys and values, so a quarter of the 64 rows.
    narrow = {n: w[:16] if re.search("key|value", n) else w for n, w in weights.items()}
    torch.save(narrow, path)


def write_toygpt_checkpoint(path: Path) -> None:
    """Write a checkpoint as Lightning does."""
    settings = json.loads((FIXTURES / "toygpt" / "info.json").read_text())["hyper_parameters"]
    weights = torch.load(FIXTURES / "toygpt" / "state_dict.pt", weights_only=True)
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": weights, "hyper_parameters": settings}, path)

"""Measures models: loss on held-out documents, French minimal pairs, answers to questions."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dimgpt.config import SamplingConfig
from dimgpt.data.conversation import Message, encode_prompt, first_exchange
from dimgpt.data.reading.finetuning import ConversationCorpus
from dimgpt.data.reading.pretraining import Corpus, Mixture
from dimgpt.evaluation.french_probes import french_pairs
from dimgpt.evaluation.overlap import RUN_TOKENS, find_copied
from dimgpt.evaluation.perplexity import measure_perplexity
from dimgpt.evaluation.probes import ProbeScore, score_pairs
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.data import open_corpus, require_conversations
from dimgpt.pipeline.models import open_model
from dimgpt.runtime import Runtime
from dimgpt.settings import override, to_dict
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.weights.originals import load_weights
from dimgpt.workspace import STAGES, Stage, Workspace, load_vocabulary

HeldOut = Literal["validation", "test"]


def evaluate_documents(
    workspace: Workspace, model: Transformer, *, runtime: Runtime, split: HeldOut = "validation"
) -> list[dict[str, Any]]:
    """Measure a model on all documents of a held-out split; return one row of a table per source.

    Raises:
        ValueError: The data have no such split, or the model has another vocabulary.
    """
    corpus, tokenizer = open_corpus(workspace), load_vocabulary(workspace)
    held_out = held_out_of(workspace, corpus, split)
    tokenizer.require_vocab_size(model.config.vocab_size)
    model, byte_counts = model.to(runtime.device).eval(), tokenizer.byte_counts()
    return [
        {"source": source.name}
        | to_dict(measure_perplexity(model, file, byte_counts=byte_counts, runtime=runtime))
        for source, file in zip(corpus.sources, held_out.files, strict=True)
    ]


def held_out_of(workspace: Workspace, corpus: Corpus, split: HeldOut) -> Mixture:
    """Return a held-out split of the data.

    Raises:
        ValueError: The data have no such split.
    """
    mixture = {"validation": corpus.validation, "test": corpus.test}.get(split)
    if mixture is None:
        raise ValueError(
            f"split is {split!r}: {workspace.data_folder} has no such split; measure validation, "
            f"or make a test split with `{workspace.prepare_command} --data.test-ratio 0.01` and "
            "train a new model on the rest"
        )
    return mixture


def measure_copying(
    train: Mixture, held_out: Mixture, writer: TextGenerator | None = None
) -> dict[str, str]:
    """Measure how much of the held-out texts and of generated texts is also in the training files.

    The share of the held-out texts is expected of any new text from these sources. A model whose
    texts have a larger share has memorised training texts.

    Args:
        train: The training files.
        held_out: Files of the same sources; texts of fewer than 20 tokens are left out.
        writer: A model, which generates 2,048 tokens without a prompt; `None` leaves it out.

    Returns:
        Description -> number or share, as text.
    """
    documents = [file.document(n) for file in held_out.files for n in range(file.num_documents)]
    texts = [ids for ids in documents if len(ids) >= RUN_TOKENS]
    samples = []
    if writer is not None:
        sampling = SamplingConfig(max_new_tokens=64, seed=0)
        samples = list(map(np.array, writer.complete_batch([[]] * 32, sampling)))
    parts = itertools.chain.from_iterable(file.parts for file in train.files)
    masks = find_copied([*texts, *samples], parts)
    known, written = masks[: len(texts)], masks[len(texts) :]
    num_whole = sum(bool(mask.all()) for mask in known)
    facts = {"Held-out texts in the training files": f"{num_whole:,} of {len(known):,}"}
    for name, found in (("Held-out", known), ("Sampled", written)):
        if num_tokens := sum(map(len, found)):
            ratio = sum(int(mask.sum()) for mask in found) / num_tokens
            label = f"{name} tokens copied in runs of {RUN_TOKENS} and more"
            facts[label] = f"{ratio:.1%} of {num_tokens:,}"
    return facts


def evaluate_probes(path: Path, *, runtime: Runtime) -> list[ProbeScore]:
    """Score a model on each kind of French minimal pairs; raises as `open_model`."""
    model, tokenizer = open_model(path, runtime=runtime)
    return score_pairs(model.eval(), tokenizer, french_pairs(), runtime=runtime)


def compare_probes(
    model: Transformer, tokenizer: Tokenizer, *, runtime: Runtime
) -> list[dict[str, Any]]:
    """Score a model and an untrained one of its shape on French minimal pairs; return table rows.

    Raises:
        ValueError: The vocabulary cannot encode any of the pairs.
    """
    torch.manual_seed(0)
    untrained = Transformer(model.config).to(runtime.device)
    scores = [
        score_pairs(each.eval(), tokenizer, french_pairs(), runtime=runtime)
        for each in (untrained, model)
    ]
    return [
        {
            "kind": score.kind.replace("_", " "),
            "pairs": score.pairs,
            "this model": f"{score.accuracy:.0%}",
            "random weights": f"{random.accuracy:.0%}",
            "chance": f"{score.chance:.0%}",
        }
        for random, score in zip(*scores, strict=True)
    ]


def compare_answers(
    workspace: Workspace, stage: Stage, *, runtime: Runtime, num_questions: int = 10
) -> list[dict[str, str]]:
    """Ask the models of several stages the same questions, and return the rows of a table.

    The preset's questions come first, then questions of held-out conversations.

    Args:
        workspace: Gives questions, sampling, data and models.
        stage: The models of all stages up to this one are loaded and asked.
        runtime: Device.
        num_questions: Number of rows; fewer if the data have fewer questions.

    Raises:
        FileNotFoundError: A model is missing.
        ValueError: There are no conversations, or a model has another vocabulary.
    """
    tokenizer, preset = load_vocabulary(workspace), workspace.preset
    opening = [Message(role="system", text=text) for text in (preset.system_prompt,) if text]
    exchanges = [
        (encode_prompt([*opening, Message(role="user", text=text)], tokenizer), text, "")
        for text in preset.questions[:num_questions]
    ]
    held_out = _held_out_exchanges(workspace, tokenizer)
    exchanges += itertools.islice(held_out, num_questions - len(exchanges))
    prompts = [prompt for prompt, *_ in exchanges]
    rows = [{"question": question, "in the data": answer} for _, question, answer in exchanges]
    sampling = override(preset.sampling, max_new_tokens=40, seed=0)
    later = STAGES[1 : STAGES.index(stage) + 1]
    paths = [*(workspace.base_path(each) for each in later), workspace.model_dir(stage)]
    for name, path in zip(("pretraining", *later), filter(None, paths), strict=True):
        writer = TextGenerator(load_weights(path).to(runtime.device), tokenizer)
        answers = writer.complete_batch(prompts, sampling, is_chat=True)
        for row, ids in zip(rows, answers, strict=True):
            row[name] = tokenizer.decode(ids).strip()
    return rows


def _held_out_exchanges(
    workspace: Workspace, tokenizer: Tokenizer
) -> Iterator[tuple[list[int], str, str]]:
    """Yield prompt, question and answer of held-out conversations, from each group in turn.

    Exchanges that do not fit into the context are skipped.
    """
    groups, chat = require_conversations(workspace), tokenizer.chat
    folder, limit = workspace.data_dir("finetuning"), workspace.preset.model.context_length
    files = ConversationCorpus.open(folder, groups, tokenizer.fingerprint).validation.files
    closer = chat.format.closers.get("user", "")
    for index in range(max(file.num_documents for file in files)):
        for file in files:
            found = (
                first_exchange(file.document(index), chat) if index < file.num_documents else None
            )
            if found and len(found.prompt) + len(found.answer) <= limit:
                question = tokenizer.decode(found.question).strip().removesuffix(closer)
                yield found.prompt, question.strip(), tokenizer.decode(found.answer).strip()

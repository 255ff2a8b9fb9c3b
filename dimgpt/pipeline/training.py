"""A stage of training put together, and the held-out documents measured."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dimgpt.evaluation.perplexity import measure_perplexity
from dimgpt.generation.chat import ChatSession
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.data import fingerprint_data, open_corpus, open_data
from dimgpt.pipeline.models import build_model, fingerprint_weights
from dimgpt.pipeline.runs import describe_run
from dimgpt.runtime import Runtime
from dimgpt.settings import override, to_dict
from dimgpt.text.tokenizer import Tokenizer
from dimgpt.training.journal import Observer
from dimgpt.training.micro_batch_search import wants_micro_batch_search, with_fastest_micro_batch
from dimgpt.training.run_folder import lock_run
from dimgpt.training.trainer import Trainer
from dimgpt.workspace import Stage, Workspace, load_vocabulary


def build_trainer(
    workspace: Workspace,
    stage: Stage,
    *,
    runtime: Runtime,
    observers: Sequence[Observer] = (),
    branch_from: Path | None = None,
) -> Trainer:
    """Put together what a stage needs; the trainer resumes by itself if the run has begun.

    Raises:
        RuntimeError: A micro-batch is to be searched, and another trainer is at work in the folder.
    """
    tokenizer, model = load_vocabulary(workspace), build_model(workspace, stage)
    tokenizer.require_vocab_size(model.config.vocab_size)
    base_fingerprint = fingerprint_weights(model) if stage == "finetuning" else ""
    config = workspace.config(stage)
    if wants_micro_batch_search(config, runtime):
        with lock_run(workspace.run_dir(stage)):  # it takes all the memory that it finds
            config = with_fastest_micro_batch(model, config, runtime)
    return Trainer(
        model,
        open_data(workspace, stage, config),
        config,
        run_dir=workspace.run_dir(stage),
        runtime=runtime,
        vocabulary=tokenizer.fingerprint,
        data_fingerprint=fingerprint_data(workspace, stage),
        base_fingerprint=base_fingerprint,
        byte_counts=tokenizer.byte_counts(),
        sample=_sampler(workspace, stage, model, tokenizer),
        observers=observers,
        branch_from=branch_from,
        recipe=describe_run(workspace, stage),
    )


def evaluate_documents(
    workspace: Workspace, model: Transformer, *, runtime: Runtime
) -> list[dict[str, Any]]:
    """Measure a model on all held-out documents, source by source, as rows of a table."""
    corpus, tokenizer = open_corpus(workspace), load_vocabulary(workspace)
    tokenizer.require_vocab_size(model.config.vocab_size)
    model, byte_counts = model.to(runtime.device).eval(), tokenizer.byte_counts()
    return [
        {"source": source.name}
        | to_dict(measure_perplexity(model, file, byte_counts=byte_counts, runtime=runtime))
        for source, file in zip(corpus.sources, corpus.validation.files, strict=True)
    ]


def _sampler(
    workspace: Workspace, stage: Stage, model: Transformer, tokenizer: Tokenizer
) -> Callable[[], str]:
    """Return what is done now and then to read how the model learns: it writes, or answers."""
    preset = workspace.preset
    sampling = override(preset.sampling, max_new_tokens=40, seed=0)
    if stage == "pretraining":
        writer = TextGenerator(model, tokenizer)
        return lambda: preset.prompt + writer.complete(preset.prompt, sampling)

    def answer() -> str:
        session = ChatSession(model, tokenizer, sampling, preset.system_prompt)
        return f"{preset.questions[-1]} {''.join(session.ask(preset.questions[-1]))}"

    return answer

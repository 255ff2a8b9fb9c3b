"""The demo: the three notebooks from first to last, and a score of what came out.

The notebooks run as a person would run them, with their outputs on the terminal as they come. The
score asks only what training never saw.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dimgpt.config import SamplingConfig
from dimgpt.data.conversation import encode_prompt
from dimgpt.data.demo_corpus import Question, held_out_questions
from dimgpt.evaluation.demo_score import DemoScore, score_demo
from dimgpt.generation.generator import TextGenerator
from dimgpt.model.transformer import Transformer
from dimgpt.text.tokenizer import Tokenizer

_NOTEBOOKS: tuple[tuple[str, dict[str, str]], ...] = (
    ("create_data", {}),
    ("training", {"STAGE": "pretraining"}),
    ("training", {"STAGE": "finetuning"}),
    ("testing", {}),
)


def run_notebooks(output_dir: Path) -> list[Path]:
    """Execute the notebooks of the working directory with the demo preset.

    Args:
        output_dir: Gets the executed notebooks, outputs included.

    Returns:
        The executed notebooks.

    Raises:
        FileNotFoundError: The working directory is not the repository's.
        papermill.PapermillExecutionError: A cell failed; what ran until then is in the output.
    """
    written = []
    for number, (name, parameters) in enumerate(_NOTEBOOKS, start=1):
        source = Path(f"{name}.ipynb")
        if not source.exists():
            raise FileNotFoundError(f"{source} is not here: run from the repository's folder")
        output_dir.mkdir(parents=True, exist_ok=True)
        stage = "".join(f"-{value}" for value in parameters.values())
        target = output_dir / f"{number}-{name}{stage}.ipynb"
        print(f"\n━━ {number} of {len(_NOTEBOOKS)}: {source} {stage.removeprefix('-')}", flush=True)
        _print_reports(_execute(source, target, parameters))
        written.append(target)
    return written


def _execute(source: Path, target: Path, parameters: dict[str, str]) -> Any:
    """Run a notebook, with what its cells print on the terminal as it comes."""
    import papermill
    from traitlets.config import Config

    # Kernels listen on sockets of the file system instead of on the network, where there are any.
    transport = "tcp" if os.name == "nt" else "ipc"
    return papermill.execute_notebook(
        source,
        target,
        parameters={"PRESET": "demo", **parameters},
        kernel_name="python3",
        progress_bar=False,
        stdout_file=sys.stdout,
        stderr_file=sys.stderr,
        config=Config({"KernelManager": {"transport": transport}}),
        coalesce_streams=True,  # of a progress bar, keep the last line only
    )


def _print_reports(book: Any) -> None:
    """Print the tables of the cells tagged `report`; what cells print was shown as it came."""
    for cell in book.cells:
        for output in cell.get("outputs", []) if "report" in cell.metadata.get("tags", []) else []:
            print(output.get("data", {}).get("text/plain", ""))


def score_models(
    model: Transformer,
    chat_model: Transformer,
    tokenizer: Tokenizer,
    *,
    sampling: SamplingConfig,
    num_stories: int = 40,
    questions_per_kind: int = 60,
) -> DemoScore:
    """Let the pretrained model tell stories, and ask the chat model what it never saw.

    Args:
        model: Pretrained on the stories.
        chat_model: Fine-tuned on the conversations; it answers greedily.
        tokenizer: Of both.
        sampling: How the stories are drawn.
        num_stories: Stories to read.
        questions_per_kind: Questions of each kind.
    """
    questions = held_out_questions(questions_per_kind, seed=0)
    answers = _answer(chat_model, tokenizer, questions)
    start = tokenizer.encode_beginning("")
    drawn = dataclasses.replace(sampling, seed=0)
    writer = TextGenerator(model, tokenizer)
    stories = writer.complete_batch([start] * num_stories, drawn)
    by_conversation = {id(question.conversation): answer for question, answer in answers}
    return score_demo(
        questions,
        lambda conversation: by_conversation[id(conversation)],
        generated_stories=[tokenizer.decode(story) for story in stories],
    )


def _answer(
    model: Transformer, tokenizer: Tokenizer, questions: Sequence[Question]
) -> list[tuple[Question, str]]:
    greedy = SamplingConfig(temperature=0.0, max_new_tokens=24)
    prompts = [encode_prompt(question.conversation.messages, tokenizer) for question in questions]
    answers = TextGenerator(model, tokenizer).complete_batch(prompts, greedy, is_chat=True)
    texts = [tokenizer.decode(answer) for answer in answers]
    return list(zip(questions, texts, strict=True))

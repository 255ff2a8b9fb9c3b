"""Claim: rewards for right answers teach a fine-tuned model more than the right answers do.

The demo's grammar gives the right answers of sums and conjugations. A step draws questions that are
not held out, and a group of answers at temperature 1 for each. The reward of an answer is 1 if it
is right, else 0. In the loss, the tokens of an answer have the weight reward minus mean of the
group: REINFORCE (Williams 1992) with the group mean of GRPO, https://arxiv.org/abs/2402.03300, and
nothing else of GRPO. For comparison, the same model learns the right answers of equally many
questions, each once, by cross-entropy. The tokens that end an answer have no loss, because a chat
format may have several of them.

Before and after, all kinds of held-out questions are asked, and the loss on stories is measured.

    make demo && make demo SEED=1 && make demo SEED=2
    python benchmarks/rewards.py models/demo-chat models/demo-seed-[12]/demo-chat --write
"""

import argparse
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from benchmarks.reporting import report, spread  # noqa: E402
from dimgpt.config import SamplingConfig  # noqa: E402
from dimgpt.data.conversation import Message, encode_prompt  # noqa: E402
from dimgpt.demo.corpus import KINDS, held_out_questions, is_held_out, stories  # noqa: E402
from dimgpt.generation.generator import TextGenerator  # noqa: E402
from dimgpt.model.transformer import Transformer  # noqa: E402
from dimgpt.text.tokenizer import Tokenizer  # noqa: E402
from dimgpt.weights.store import load_model, load_tokenizer  # noqa: E402

TRAINED = ("sum", "conjugation")
QUESTIONS_PER_STEP, ANSWERS_PER_QUESTION, MAX_ANSWER_TOKENS = 16, 8, 16
QUESTIONS_PER_KIND, NUM_STORIES = 60, 100


def main() -> None:
    """Train each model both ways, and report what each way changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, default=[ROOT / "models" / "demo-chat"])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=3e-5)
    parser.add_argument("--write", action="store_true", help="keep the result in results/")
    arguments = parser.parse_args()
    if missing := [str(folder) for folder in arguments.models if not folder.is_dir()]:
        print(f"rewards needs fine-tuned models, and {missing[0]} is missing: run make demo")
        return
    ways = {"before": None, "rewards": reward_rows, "right answers": right_rows}
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for seed, folder in enumerate(arguments.models):
        for way, make_rows in ways.items():
            model, tokenizer = load_model(folder), load_tokenizer(folder)
            began = time.perf_counter()
            if make_rows is not None:
                train(model, tokenizer, make_rows, arguments.steps, arguments.rate, seed)
            seconds = time.perf_counter() - began
            found[way].append({"seconds": seconds, **measure(model, tokenizer)})
            print(folder, way, found[way][-1], file=sys.stderr)
    measured = {
        way: {name: spread([run[name] for run in runs], digits=3) for name in runs[0]}
        for way, runs in found.items()
    }
    settings = {"steps": arguments.steps, "rate": arguments.rate, "models": len(arguments.models)}
    report("rewards", {**settings, **measured})


def train(
    model: Transformer, tokenizer: Tokenizer, make_rows: Any, steps: int, rate: float, seed: int
) -> None:
    """Take optimizer steps at a learning rate that falls linearly to 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    rng = Random(f"rewards {seed}")
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        asked = [draw_question(rng) for _ in range(QUESTIONS_PER_STEP)]
        rows = make_rows(model, tokenizer, asked, seed * 1_000_003 + step)
        if rows:
            weighted_loss(model, rows).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def draw_question(rng: Random) -> tuple[str, str]:
    """Draw a question of a trained kind with its right answer, none that is held out."""
    while True:
        key, question, answer = KINDS[rng.choice(TRAINED)].draw(rng)
        if not is_held_out(key):
            return question, answer


Row = tuple[list[int], list[int], float]
"""Ids of a prompt and of its answer, and the weight of the answer."""


def reward_rows(
    model: Transformer, tokenizer: Tokenizer, asked: list[tuple[str, str]], seed: int
) -> list[Row]:
    """Draw a group of answers to each question; groups that are all right or all wrong drop out."""
    prompts = [prompt_of(question, tokenizer) for question, _ in asked]
    repeated = [prompt for prompt in prompts for _ in range(ANSWERS_PER_QUESTION)]
    config = SamplingConfig(
        temperature=1.0, top_p=1.0, max_new_tokens=MAX_ANSWER_TOKENS, seed=seed * len(repeated)
    )
    said = TextGenerator(model, tokenizer).complete_batch(repeated, config, is_chat=True)
    rows: list[Row] = []
    for number, (_, right) in enumerate(asked):
        group = said[number * ANSWERS_PER_QUESTION : (number + 1) * ANSWERS_PER_QUESTION]
        rewards = [float(tokenizer.decode(ids).strip() == right) for ids in group]
        mean = sum(rewards) / len(rewards)
        for ids, reward in zip(group, rewards, strict=True):
            rows += [(prompts[number], ids, reward - mean)] if ids and reward != mean else []
    return rows


def right_rows(
    model: Transformer, tokenizer: Tokenizer, asked: list[tuple[str, str]], seed: int
) -> list[Row]:
    """Take the right answer to each question."""
    return [
        (prompt_of(question, tokenizer), tokenizer.encode(answer), 1.0)
        for question, answer in asked
    ]


def prompt_of(question: str, tokenizer: Tokenizer) -> list[int]:
    """Encode a question up to where the model answers."""
    return encode_prompt([Message(role="user", text=question)], tokenizer)


def weighted_loss(model: Transformer, rows: list[Row]) -> Tensor:
    """Return the mean over the answers' tokens of weight times cross-entropy."""
    length = max(len(prompt) + len(answer) for prompt, answer, _ in rows)
    ids, weights = torch.zeros(len(rows), length, dtype=torch.long), torch.zeros(len(rows), length)
    for row, (prompt, answer, weight) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor([*prompt, *answer])
        weights[row, len(prompt) : end] = weight
    logits = model(ids[:, :-1]).float()
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return (losses * weights[:, 1:]).sum() / sum(len(answer) for _, answer, _ in rows)


@torch.no_grad()
def measure(model: Transformer, tokenizer: Tokenizer) -> dict[str, float]:
    """Return exact match and loss on held-out questions, and the loss on new stories."""
    model.eval()
    drawn = (held_out_questions(QUESTIONS_PER_KIND, seed=seed) for seed in range(3))
    questions = [
        question
        for seed, some in enumerate(drawn)
        for question in some
        if seed == 0 or question.kind in TRAINED
    ]
    prompts = [encode_prompt(question.conversation.messages, tokenizer) for question in questions]
    greedy = SamplingConfig(temperature=0.0, max_new_tokens=24)
    said = TextGenerator(model, tokenizer).complete_batch(prompts, greedy, is_chat=True)
    is_right = [
        tokenizer.decode(ids).strip() == question.answer
        for ids, question in zip(said, questions, strict=True)
    ]
    found = {kind: _mean(is_right, [q.kind == kind for q in questions]) for kind in TRAINED}
    others = [question.kind not in TRAINED for question in questions]
    found["other kinds"] = _mean(is_right, others)
    rows = [
        (prompt, tokenizer.encode(question.answer), 1.0)
        for prompt, question, is_other in zip(prompts, questions, others, strict=True)
        if is_other
    ]
    found["loss on other kinds"] = float(weighted_loss(model, rows))
    texts = [tokenizer.encode_beginning(text) for text in stories(NUM_STORIES, seed=99)]
    told = [(text[:1], text[1 : model.config.context_length], 1.0) for text in texts]
    found["loss on stories"] = float(weighted_loss(model, told))
    return found


def _mean(values: list[bool], chosen: list[bool]) -> float:
    taken = [value for value, is_taken in zip(values, chosen, strict=True) if is_taken]
    return sum(taken) / len(taken)


if __name__ == "__main__":
    main()

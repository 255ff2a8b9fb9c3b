"""Claim: a token costs less here than with `generate` of `transformers`, at any length.

Greedy, float32, one row, the same weights on both sides: our model with random weights, and its
export, which `transformers` opens with its own cache. They take turns in one process, ours also
with a compiled step, with weights of 8 bits, and with both; a figure is a median of ratios, above 1
where ours is faster. Also shown: tokens after the context is full against those before, and what
the 2,000th token costs.

    python benchmarks/generation.py --threads 1
"""

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # this checkout, whatever is installed

import torch  # noqa: E402

from benchmarks.reporting import report, spread  # noqa: E402
from dimgpt.config import ExportConfig, ModelConfig, SamplingConfig  # noqa: E402
from dimgpt.generation.generator import generate_ids  # noqa: E402
from dimgpt.model.int8 import round_to_int8  # noqa: E402
from dimgpt.model.transformer import Transformer  # noqa: E402
from dimgpt.presets import get_preset  # noqa: E402
from dimgpt.text.greedy_tokenizer import GreedyTokenizer  # noqa: E402
from dimgpt.text.special_tokens import SPECIAL_TOKENS, SpecialTokens  # noqa: E402
from dimgpt.weights.card import Card  # noqa: E402
from dimgpt.weights.export.exporter import export_model  # noqa: E402

SIZES = {"demo": 100, "french-5m": 100, "dimensiongpt-0.2b": 24}
"""Preset -> new tokens in a run: the prompt and they stay inside the context."""
PROMPT = tuple(range(20, 36))
_LONG = "french-5m"
_SPECIAL_TOKENS = SpecialTokens()


def ours(
    model: Transformer, num_tokens: int, *, prompt: Sequence[int] = PROMPT, **settings: Any
) -> Iterator[int]:
    """Write greedily; ⮜end-of-text⮞ would end a run, and random weights do not say it."""
    config = SamplingConfig(temperature=0.0, max_new_tokens=num_tokens, **settings)
    return generate_ids(model, prompt, config, special_tokens=_SPECIAL_TOKENS)


def peer_of(model: Transformer, folder: Path) -> Callable[[int], list[int]]:
    """Return a function that writes greedily with the export of a model."""
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    names = [*SPECIAL_TOKENS, *(f"t{number}" for number in range(model.config.vocab_size))]
    tokenizer = GreedyTokenizer(names[: model.config.vocab_size])
    target = ExportConfig(target="transformers")
    export_model(model, tokenizer, folder, target, card=Card(name="random weights"))
    peer: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = torch.tensor([PROMPT])

    def write(num_tokens: int) -> list[int]:
        # The plainest settings: without a token that ends a text, and without any penalty.
        peer.generation_config = GenerationConfig(max_new_tokens=num_tokens, pad_token_id=0)
        return peer.generate(prompt)[0, len(PROMPT) :].tolist()

    return write


def seconds(action: Callable[[], Any]) -> float:
    """Time an action."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def build(config: ModelConfig) -> Transformer:
    """Return a model with random weights, the same ones each time."""
    torch.manual_seed(0)
    return Transformer(config).eval()


def against_transformers(name: str, num_tokens: int, runs: int) -> dict[str, Any]:
    """Measure one size; `tokens_per_second` is ours."""
    model = build(get_preset(name).model)
    with tempfile.TemporaryDirectory() as folder:
        write = peer_of(model, Path(folder) / "export")
        is_same = list(ours(model, num_tokens)) == write(num_tokens)
        rounded = copy.deepcopy(model)
        round_to_int8(rounded)
        ways = {
            "transformers": lambda: write(num_tokens),
            "ratio": lambda: list(ours(model, num_tokens)),
            "compiled": lambda: list(ours(model, num_tokens, use_compile=True)),
            "int8": lambda: list(ours(rounded, num_tokens)),
            "compiled_int8": lambda: list(ours(rounded, num_tokens, use_compile=True)),
        }
        first = {name: seconds(way) for name, way in ways.items()}
        rounds = [{name: seconds(way) for name, way in ways.items()} for _ in range(runs)]
    return {
        **{
            name: spread([times["transformers"] / times[name] for times in rounds])
            for name in ways
            if name != "transformers"
        },
        "compile_seconds": round(first["compiled"], 1),
        "tokens_per_second": spread([num_tokens / times["ratio"] for times in rounds], digits=1),
        "same_tokens": is_same,
    }


def beyond_context(runs: int) -> dict[str, Any]:
    """Measure tokens after a context is full, against those before, and the 2,000th token."""
    model = build(get_preset(_LONG).model)
    length = model.config.context_length
    crop, run_on, late = [], [], []
    for _ in range(runs):
        times = token_times(model, 2_050, beyond_context="run_on")
        before = median(times[50 : length - 20])
        run_on.append(before / median(times[length + 20 : 2 * length]))
        late.append(median(times[-100:]) / median(times[50:150]))
        cropped = token_times(model, length + 20, beyond_context="crop")
        crop.append(median(cropped[50 : length - 20]) / median(cropped[-20:]))
    return {
        "run_on": spread(run_on),
        "crop": spread(crop),
        "cost_of_token_2000_to_100": spread(late),
    }


def token_times(model: Transformer, num_tokens: int, **settings: Any) -> list[float]:
    """Return the seconds that each token took."""
    times, begin = [], time.perf_counter()
    for _ in ours(model, num_tokens, **settings):
        end = time.perf_counter()
        times.append(end - begin)
        begin = end
    return times


def median(values: Sequence[float]) -> float:
    """Return the middle one."""
    return sorted(values)[len(values) // 2]


def main() -> None:
    """Measure everything, and print one JSON line last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--write", action="store_true", help="keep the result")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    found = {
        name: against_transformers(name, SIZES[name], arguments.runs) for name in arguments.sizes
    }
    report(
        "generation",
        {
            "threads": torch.get_num_threads(),
            "against_transformers": {name: row["ratio"]["median"] for name, row in found.items()},
            **{
                way: {name: row[way]["median"] for name, row in found.items()}
                for way in ("compiled", "int8", "compiled_int8")
            },
            "beyond_context": (beyond := beyond_context(arguments.runs))["run_on"]["median"],
            "details": {**found, "beyond_context": beyond},
        },
    )


if __name__ == "__main__":
    main()

"""Claim: a GGUF export generates dimgpt's tokens; llama.cpp's tokenizer cuts text differently.

Exports each model in every precision. A prebuilt llama.cpp then continues prompts that are given as
ids, and tokenizes sentences. Counts the greedy continuations that equal ours (float32) to the last
token, and the sentences that the model's own tokenizer cuts in the same way.

llama.cpp comes from npm as a prebuilt package: npm install node-llama-cpp --ignore-scripts

    python benchmarks/llama_cpp.py models/demo models/french-5m --node folder/of/node_modules
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, get_args

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.reporting import report  # noqa: E402
from benchmarks.texts import load_documents  # noqa: E402
from dimgpt.config import ExportDtype, SamplingConfig  # noqa: E402
from dimgpt.evaluation.french_probes import french_pairs  # noqa: E402
from dimgpt.generation.generator import TextGenerator  # noqa: E402
from dimgpt.text.tokenizer import Tokenizer  # noqa: E402
from dimgpt.weights.export.gguf_file import write_gguf  # noqa: E402
from dimgpt.weights.store import load_model, load_tokenizer  # noqa: E402

NUM_SENTENCES, NUM_NEW_TOKENS = 40, 20
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=NUM_NEW_TOKENS)
# Reads a job, answers with the continuations of its prompts and the ids of its texts.
SCRIPT = """
import {readFileSync} from "node:fs";
import {getLlama} from "node-llama-cpp";

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: job.model});
const context = await model.createContext({contextSize: job.context, threads: 1});
const continued = [];
for (const prompt of job.prompts) {
    const sequence = context.getSequence();
    const ids = [];
    for await (const id of sequence.evaluate(prompt, {temperature: 0})) {
        if (ids.push(id) == job.count) break;
    }
    continued.push(ids);
    sequence.dispose();
}
const cut = job.texts.map((text) => model.tokenize(text, false));
console.log(JSON.stringify({continued, cut}));
process.exit(0);
"""


def sentences() -> dict[str, list[str]]:
    """Return simple sentences, and sentences of novels and other texts."""
    random = Random(0)
    simple = random.sample([pair.right for pair in french_pairs()], NUM_SENTENCES)
    _, documents = load_documents()
    cut = (part.strip() + "." for text in documents[:300] for part in text[:5_000].split(".")[1:-1])
    real = [sentence for sentence in cut if 40 <= len(sentence) <= 160 and "\n" not in sentence]
    return {"simple sentences": simple, "real sentences": random.sample(real, NUM_SENTENCES)}


def ask(folder: Path, node: Path, **job: Any) -> dict[str, list[list[int]]]:
    """Run llama.cpp on a file of prompts and sentences, and return its results."""
    (model,) = folder.glob("*.gguf")
    path = folder / "job.json"
    path.write_text(json.dumps({"model": str(model), "count": NUM_NEW_TOKENS, **job}))
    script = node.parent / "dimgpt-ask.mjs"  # node looks for packages beside the script
    script.write_text(SCRIPT)
    try:
        command = ["node", str(script), str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        script.unlink()
    found: dict[str, list[list[int]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def count_same(first: Sequence[Sequence[int]], second: Sequence[Sequence[int]]) -> str:
    """Return how many of two lists of ids are the same."""
    same = sum(list(one) == list(other) for one, other in zip(first, second, strict=True))
    return f"{same} of {len(first)}"


def measure(path: Path, node: Path) -> dict[str, Any]:
    """Compare one model in all precisions."""
    model, tokenizer = load_model(path).eval(), load_tokenizer(path)
    texts = sentences()
    prompts = [_first_words(text, tokenizer) for text in texts["simple sentences"]]
    ours = TextGenerator(model, tokenizer).complete_batch(prompts, GREEDY)
    whole = [index for index, ids in enumerate(ours) if len(ids) == NUM_NEW_TOKENS]
    prompts, ours = [prompts[index] for index in whole], [ours[index] for index in whole]
    found: dict[str, Any] = {"vocabulary": tokenizer.vocab_size}
    for dtype in get_args(ExportDtype):
        with tempfile.TemporaryDirectory() as name:
            write_gguf(model, tokenizer, Path(name), name="model", dtype=dtype)
            # GPT-2's way in llama.cpp puts no space before a text; the card of such a file says so.
            space = " " if tokenizer.token_bytes(tokenizer.encode("a")[0])[:1] == b" " else ""
            both = [space + text for group in texts.values() for text in group]
            theirs = ask(Path(name), node, context=64, prompts=prompts, texts=both)
        found[f"continued, {dtype}"] = count_same(ours, theirs["continued"])
    for number, (kind, group) in enumerate(texts.items()):
        cut = theirs["cut"][number * NUM_SENTENCES : (number + 1) * NUM_SENTENCES]
        found[kind] = count_same([tokenizer.encode(text) for text in group], cut)
    return found


def _first_words(text: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode_beginning(text)[:6]


def main() -> None:
    """Compare the models that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", type=Path, nargs="*", default=[ROOT / "models" / "demo"])
    parser.add_argument("--node", type=Path, default=Path("node_modules"), help="its packages")
    parser.add_argument("--write", action="store_true", help="keep the result in results/")
    arguments = parser.parse_args()
    needed = [*arguments.models, arguments.node / "node-llama-cpp"]
    if missing := [str(path) for path in needed if not path.exists()]:
        print(f"llama_cpp needs models and node-llama-cpp, and {missing[0]} is missing")
        return
    report("llama-cpp", {path.name: measure(path, arguments.node) for path in arguments.models})


if __name__ == "__main__":
    main()

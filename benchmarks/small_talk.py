"""Claim: a model of real French that knows no facts is polite, and says that it does not know.

Asks a fine-tuned `french-5m` in wordings of small talk that training never saw, each with several
words in its slots. An answer is right if it is exactly one of the training answers for the topic.
Then it asks the first questions of held-out real conversations, and counts the answers that begin
with "Je ne sais pas".

    python benchmarks/small_talk.py models/french-5m-modern-chat
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # this checkout, whatever is installed

from benchmarks.reporting import report  # noqa: E402
from dimgpt.config import SamplingConfig  # noqa: E402
from dimgpt.data.conversation import Message, encode_prompt, first_exchange  # noqa: E402
from dimgpt.data.token_file import TokenFile  # noqa: E402
from dimgpt.demo.small_talk import held_out_talk  # noqa: E402
from dimgpt.generation.generator import TextGenerator  # noqa: E402
from dimgpt.text.tokenizer import Tokenizer  # noqa: E402
from dimgpt.weights.store import load_model, load_tokenizer  # noqa: E402

DRAWS = 10
"""Messages of each wording."""
MAX_QUIZ_TOKENS = 60
"""Longer questions bring a text that may hold the answer."""
GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=40)


def quiz_prompts(folder: Path, tokenizer: Tokenizer) -> Iterator[list[int]]:
    """Yield the short first questions of held-out conversations."""
    file = TokenFile(folder, "validation", fingerprint=tokenizer.fingerprint)
    for index in range(file.num_documents):
        found = first_exchange(file.document(index), tokenizer.chat)
        if found and len(found.prompt) <= MAX_QUIZ_TOKENS:
            yield found.prompt


def main() -> None:
    """Ask a model, and report the share of right answers for each topic."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default="models/french-5m-modern-chat")
    parser.add_argument("--data", type=Path, default="data/french-5m-modern/finetuning/instruct")
    parser.add_argument("--write", action="store_true", help="keep the result in results/")
    arguments = parser.parse_args()
    if missing := [path for path in (arguments.model, arguments.data) if not path.is_dir()]:
        print(f"small_talk needs a fine-tuned french-5m and its data, and {missing[0]} is missing")
        return
    tokenizer = load_tokenizer(arguments.model)
    writer = TextGenerator(load_model(arguments.model), tokenizer)

    def answers(prompts: Sequence[Sequence[int]]) -> list[str]:
        found = writer.complete_batch(prompts, GREEDY, is_chat=True)
        return [tokenizer.decode(ids).strip() for ids in found]

    talk = [item for seed in range(DRAWS) for item in held_out_talk(seed=seed)]
    asked = [encode_prompt([Message(role="user", text=text)], tokenizer) for _, text, _ in talk]
    num_right, num_asked = Counter[str](), Counter(topic for topic, *_ in talk)
    for (topic, text, right), answer in zip(talk, answers(asked), strict=True):
        num_right[topic] += answer in right
        if answer not in right:
            print(f"{topic}: {text} -> {answer}")
    quiz = answers(list(quiz_prompts(arguments.data, tokenizer)))
    unknown = sum(answer.startswith("Je ne sais pas") for answer in quiz)
    report(
        "small-talk",
        {
            "right": {topic: round(num_right[topic] / num_asked[topic], 3) for topic in num_asked},
            "asked": dict(num_asked),
            "real questions": {"asked": len(quiz), "does not know": round(unknown / len(quiz), 3)},
        },
    )


if __name__ == "__main__":
    main()

"""The command line: `python -m dimgpt VERB --help`.

The preset gives all defaults, so `--preset` is looked for before the flags are read.
"""

import logging
import sys
from collections.abc import Sequence

import tyro

from dimgpt.commands import VERBS, Verb
from dimgpt.presets import PRESETS, get_preset


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; what goes wrong is one line on standard error, and the status 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if not words or words[0] not in VERBS:
        lines = [f"  {name:10}{verb.__doc__}" for name, verb in VERBS.items()]
        print("usage: python -m dimgpt VERB [--help] [--preset NAME] ...", *lines, sep="\n")
        raise SystemExit(0 if words[:1] in ([], ["-h"], ["--help"]) else 2)
    try:
        preset = get_preset(_flag(words, "--preset") or next(iter(PRESETS)))
        verb = VERBS[words[0]]
        command: Verb = tyro.cli(
            verb,
            prog=f"python -m dimgpt {words[0]}",
            args=words[1:],
            default=verb.defaults(preset),
        )
        command.run()
    except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
        raise SystemExit(f"dimgpt {words[0]}: {error}") from error


def _flag(words: Sequence[str], name: str) -> str | None:
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word.startswith(f"{name}="):
            return word.removeprefix(f"{name}=")
        if word == name:
            return following
    return None


if __name__ == "__main__":
    main()

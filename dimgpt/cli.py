"""The command line: `python -m dimgpt VERB --help`.

The preset gives all defaults, a file named by `--config` comes before it, and the flags before
both: so these two flags are looked for before the others are read.
"""

import contextlib
import dataclasses
import io
import json
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import tyro

from dimgpt.commands import VERBS
from dimgpt.presets import PRESETS, get_preset
from dimgpt.settings import merge

_INTERRUPTED = 130  # what shells expect after Ctrl-C


class Verb(Protocol):
    """What the first word of the command line asks for."""

    def run(self) -> None:
        """Do it."""
        ...


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; what goes wrong is one line on standard error, and the status 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without accents shows ? for them
    if not words or words[0] not in VERBS:
        lines = [f"  {name:12}{verb.__doc__}" for name, verb in VERBS.items()]
        print("usage: python -m dimgpt VERB [--help] [--preset NAME] ...", *lines, sep="\n")
        raise SystemExit(0 if words[:1] in ([], ["-h"], ["--help"]) else 2)
    try:
        _read_flags(words).run()
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads, `head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt as interrupt:
        print(f"\ndimgpt {words[0]}: interrupted", *interrupt.args, sep="; ", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    except (ValueError, OSError, ArithmeticError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SystemExit(f"dimgpt {words[0]}: {reason}") from error


def _read_flags(words: Sequence[str]) -> Verb:
    """Build the verb from its flags.

    Raises:
        ValueError: A value breaks the rule of its setting.
        SystemExit: Help was asked for, or the flags cannot be understood; tyro has said so.
    """
    verb = VERBS[words[0]]
    has_file = "config" in {field.name for field in dataclasses.fields(verb)}
    settings = _read_settings(_flag(words, "--config")) if has_file else {}
    preset = get_preset(_flag(words, "--preset") or settings.get("preset") or next(iter(PRESETS)))
    defaults = verb.defaults(preset)
    if settings:
        defaults = merge(defaults, settings)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                verb,
                prog=f"python -m dimgpt {words[0]}",
                args=words[1:],
                default=defaults,
            )
    except SystemExit as stop:
        if (broken_rule := _broken_rule(stop)) is not None:
            raise broken_rule from None
        sys.stderr.write(complaint.getvalue())
        raise


def _read_settings(name: str | None) -> dict[str, Any]:
    """Read the file of `--config`, which stands between the preset and the flags."""
    if name is None:
        return {}
    try:
        settings = json.loads(Path(name).read_bytes())
    except ValueError as error:
        raise ValueError(f"config is {name}: it is not JSON ({error}); correct it") from error
    if not isinstance(settings, dict):
        raise ValueError(f"config is {name}: it must hold an object of settings; see --help")
    if not isinstance(settings.get("preset", ""), str):
        raise ValueError(
            f"config is {name}: its preset is no name; if it is what a run keeps of itself, go on "
            f"with `python -m dimgpt resume {Path(name).parent}`"
        )
    return settings


def _broken_rule(stop: BaseException) -> ValueError | None:
    """Return the error of a setting's own check, of which tyro makes a box of several lines."""
    error = stop.__context__
    while error is not None:
        if isinstance(error, ValueError):
            frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
            if frames[-1].f_globals["__name__"].startswith("dimgpt.config."):
                return error
        error = error.__context__
    return None


def _flag(words: Sequence[str], name: str) -> str | None:
    """Return the value of a flag; of one given twice the last, which is the one that tyro takes."""
    value = None
    for word, following in zip(words, [*words[1:], None], strict=True):
        if word.startswith(f"{name}="):
            value = word.removeprefix(f"{name}=")
        elif word == name:
            value = following
    return value

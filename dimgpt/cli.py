"""The command line: `python -m dimgpt VERB --help`.

Every verb takes `--quiet`, which shows results and errors only. If the variable `NO_COLOR` is set,
the help has no colours. Flags override the file of `--config`, and that file overrides the preset.
So `--preset` and `--config` are read before the other flags.
"""

import argparse
import contextlib
import dataclasses
import importlib
import io
import json
import logging
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dimgpt.commands import VERBS
from dimgpt.installation import own_version
from dimgpt.settings import nearest

_INTERRUPTED = 130  # the status that shells expect after Ctrl-C


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb; an error prints one line on standard error and exits with status 1."""
    _open_closed_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # terminals that lack accents show ? instead
    if words[:1] == ["--version"]:
        print(f"dimgpt {own_version()}")
        return
    if words[:1] == ["--completion"]:
        return _print_completion(words[1:])
    if "--quiet" in words:
        words.remove("--quiet")
        logging.getLogger().setLevel(logging.ERROR)
        os.environ["TQDM_DISABLE"] = "1"  # tqdm reads the variable when it is imported
    if not words or words[0] not in VERBS:
        lines = [f"  {name:12}{summary}" for name, (_, summary) in VERBS.items()]
        print("usage: python -m dimgpt VERB [--help] [--preset NAME] ...", *lines, sep="\n")
        if words[:1] in ([], ["-h"], ["--help"]):
            raise SystemExit(0)
        print(f"dimgpt: no verb {words[0]!r}{nearest(words[0], VERBS)}", file=sys.stderr)
        raise SystemExit(2)
    try:
        _read_flags(words[0], words[1:]).run()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except KeyboardInterrupt as interrupt:
        print(f"\ndimgpt {words[0]}: interrupted", *interrupt.args, sep="; ", file=sys.stderr)
        raise SystemExit(_INTERRUPTED) from None
    except (ValueError, OSError, ArithmeticError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SystemExit(f"dimgpt {words[0]}: {reason}") from error


def _open_closed_streams() -> None:
    """Open `/dev/null` for standard streams that are closed, as under cron.

    Otherwise the next opened file gets the number of a closed stream, and output of other libraries
    to that stream goes into the file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _load_verb(name: str) -> Any:
    module, verb_name = VERBS[name][0].split(".")
    return getattr(importlib.import_module(f"dimgpt.commands.{module}"), verb_name)


@contextlib.contextmanager
def _plain_if_asked() -> Iterator[None]:
    """Let tyro print without colours where NO_COLOR is set, https://no-color.org."""
    terminal = os.environ.get("TERM")
    if terminal is None or not os.environ.get("NO_COLOR"):
        yield
        return
    os.environ["TERM"] = "dumb"  # tyro reads TERM only
    try:
        yield
    finally:
        os.environ["TERM"] = terminal


def _print_completion(words: Sequence[str]) -> None:
    """Print a shell script that completes the verbs and flags of the command `dimgpt`."""
    import tyro

    if words not in (["bash"], ["zsh"]):
        raise SystemExit("dimgpt: --completion takes bash or zsh: dimgpt --completion bash")
    tyro.extras.subcommand_cli_from_dict(
        {name: _load_verb(name) for name in VERBS},
        prog="dimgpt",
        args=["--tyro-print-completion", *words],
    )


def _read_flags(name: str, words: Sequence[str]) -> Any:
    """Build a verb from its flags.

    Raises:
        ValueError: A value breaks the rule of its setting.
        SystemExit: `--help` was given, or tyro has reported wrong flags.
    """
    import tyro  # takes 0.2 s, which the list of verbs does not need

    from dimgpt.presets import get_preset
    from dimgpt.settings import merge

    summary, verb = VERBS[name][1], _load_verb(name)
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", nargs="?")
    early.add_argument("--config", nargs="?")
    given, _ = early.parse_known_args(words)
    has_config = "config" in verb.__dataclass_fields__
    settings = _read_settings(given.config) if has_config and given.config is not None else {}
    preset = get_preset(given.preset or settings.get("preset", "demo"))
    options: dict[str, Any] = {"description": summary, "args": words}
    stage = {"finetune": "finetuning", "prefer": "preferences"}.get(name, "pretraining")
    tables = {
        field.name: getattr(preset, stage if field.name == "training" else field.name)
        for field in dataclasses.fields(verb)
        if dataclasses.is_dataclass(field.type)
    }
    if tables:
        options["default"] = merge(verb(preset=preset.name, **tables), settings)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint), _plain_if_asked():
            return tyro.cli(verb, prog=f"python -m dimgpt {name}", **options)
    except SystemExit as stop:
        if (broken_rule := _broken_rule(stop)) is not None:
            raise broken_rule from None
        sys.stderr.write(complaint.getvalue())
        raise


def _read_settings(name: str) -> dict[str, Any]:
    try:
        settings = json.loads(Path(name).read_bytes())
    except ValueError as error:
        raise ValueError(f"config is {name}: it is not JSON ({error}); correct it") from error
    if not isinstance(settings, dict):
        raise ValueError(f"config is {name}: it must contain an object of settings; see --help")
    if not isinstance(settings.get("preset", ""), str):
        raise ValueError(
            f"config is {name}: its preset is not a name; to continue the run that this file "
            f"belongs to, use `python -m dimgpt resume {shlex.quote(str(Path(name).parent))}`"
        )
    return settings


def _broken_rule(error: BaseException | None) -> ValueError | None:
    """Find the error of a setting's own check; tyro would print a box of several lines."""
    while error := error and error.__context__:
        if isinstance(error, ValueError):
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if frame.f_globals["__name__"].startswith("dimgpt.config."):
                return error
    return None

"""The verb `chat`: talk with a model in the terminal.

A line is a question, or a command that begins with a slash; `/help` lists them.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dimgpt.commands.models import Writer, print_stream
from dimgpt.data.conversation import Message
from dimgpt.files import replace_file
from dimgpt.generation.chat import ChatSession
from dimgpt.presets import get_preset
from dimgpt.settings import nearest, override


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat(Writer):
    """Flags of `chat`."""

    system_prompt: str | None = None
    """System prompt, "" for none; the preset's if not given."""

    def run(self) -> None:
        """Read lines, stream answers and run commands."""
        usual = get_preset(self.preset).system_prompt
        prompt = usual if self.system_prompt is None else self.system_prompt
        talk = _Talk(self, prompt or None)
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):  # not on Windows
                import readline  # noqa: F401 - lets `input` understand arrow keys
            print("/help lists the commands.")
        with contextlib.suppress(EOFError):  # Ctrl-D
            while line := input("> ").strip():
                talk.take(line)


class _Talk:
    """A session and its commands; a command's method takes its argument and returns a report."""

    def __init__(self, flags: Writer, system_prompt: str | None) -> None:
        self._flags = flags
        # Kept here because a session drops it if its chat format has no system role; the model
        # that `/model` opens may have one.
        self._system_prompt = system_prompt
        self._session = ChatSession(*flags.open("finetuning"), flags.sampling, system_prompt)

    def take(self, line: str) -> None:
        """Answer a question or run a command; Ctrl-C stops the answer and keeps its beginning."""
        try:
            if line.startswith("/") and not line.startswith("//"):
                self._run(line)
                return
            question = line[1:] if line.startswith("//") else line
            with contextlib.closing(self._session.ask(question)) as answer:
                print_stream(answer)
        except KeyboardInterrupt:
            print()

    def _run(self, line: str) -> None:
        """Run a command; print its report, or the error that stopped it."""
        name, *rest = line.split(maxsplit=1)
        if name not in _COMMANDS:
            hint = nearest(name, _COMMANDS)
            _refuse(f"no command {name}{hint}: /help lists them; to send this text, type /{line}")
            return
        argument, purpose, command = _COMMANDS[name]
        usage = f"{name} {argument}".rstrip()
        if bool(rest) != bool(argument) and not argument.startswith("["):
            _refuse(f"type {usage} to {purpose}")
            return
        try:
            report = command(self, *rest)
        except (ValueError, OSError, ArithmeticError, RuntimeError, ImportError) as error:
            _refuse(f"{usage}: {error}")
        else:
            print(report)

    def set_system(self, text: str = "") -> str:
        """Replace the system prompt; the conversation stays."""
        self._begin(text or None, self._session.messages)
        return f"system prompt: {text or 'none'}"

    def reset(self) -> str:
        """Forget the conversation; the system prompt stays."""
        self._session.reset()
        return "new conversation"

    def save(self, name: str) -> str:
        """Write system prompt and conversation; an existing file must be a saved conversation."""
        path = Path(name).expanduser()
        if path.exists():
            _read_conversation(path)
        opening = [] if self._system_prompt is None else [("system", self._system_prompt)]
        said = [(message.role, message.text) for message in self._session.messages]
        messages = [{"role": role, "content": text} for role, text in [*opening, *said]]
        content = json.dumps({"messages": messages}, ensure_ascii=False, indent=1)
        replace_file(path, f"{content}\n".encode())
        return f"{len(said)} messages saved to {path}"

    def load(self, name: str) -> str:
        """Continue with the system prompt and the conversation of a file."""
        path = Path(name).expanduser()
        messages = _read_conversation(path)
        has_system = bool(messages) and messages[0].role == "system"
        self._begin(messages[0].text if has_system else None, messages[has_system:])
        return f"{len(self._session.messages)} messages loaded from {path}"

    def set_temperature(self, value: str) -> str:
        """Set the temperature of the next answers."""
        self._session.config = override(self._session.config, temperature=float(value))
        return f"temperature: {self._session.config.temperature}"

    def open(self, name: str) -> str:
        """Continue the conversation with another model."""
        flags = replace(self._flags, model=Path(name).expanduser(), tokenizer=None)
        self._begin(self._system_prompt, self._session.messages, flags)
        return f"model: {flags.model}; {len(self._session.messages)} messages kept"

    def help(self) -> str:
        """List the commands."""
        rows = {f"{name} {argument}": row for name, (argument, row, _) in _COMMANDS.items()}
        rows |= {"//text": "send a text that begins with a slash", "Ctrl-C": "stop the answer"}
        rows["empty line, Ctrl-D"] = "end"
        return "\n".join(f"  {typed:20}{purpose}" for typed, purpose in rows.items())

    def _begin(
        self, system_prompt: str | None, messages: Sequence[Message], flags: Writer | None = None
    ) -> None:
        """Replace the session; an error leaves the old one in place."""
        now = self._session
        parts = (now.model, now.tokenizer) if flags is None else flags.open("finetuning")
        session = ChatSession(*parts, now.config, system_prompt)
        session.restore(messages)
        session.prompt_ids(Message(role="user", text=""))  # fails if no question can follow
        self._session, self._system_prompt = session, system_prompt


_COMMANDS: dict[str, tuple[str, str, Callable[..., str]]] = {
    "/system": ("[TEXT]", "replace the system prompt; without a text, remove it", _Talk.set_system),
    "/reset": ("", "forget the conversation and keep the system prompt", _Talk.reset),
    "/save": ("FILE", "write the conversation to a JSON file", _Talk.save),
    "/load": ("FILE", "continue the conversation of a JSON file", _Talk.load),
    "/temperature": (
        "NUMBER",
        "set the randomness: 0 for none, above 1 for more",
        _Talk.set_temperature,
    ),
    "/model": ("PATH", "continue with another model, such as models/demo-chat", _Talk.open),
    "/help": ("", "list the commands", _Talk.help),
}
"""Command -> its argument (in brackets if optional), its line of help, and its method."""


def _refuse(reason: str) -> None:
    print(" ".join(reason.split()), file=sys.stderr)


def _read_conversation(path: Path) -> list[Message]:
    """Read a file of `/save`, or any other JSON file with messages in OpenAI's format.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file has another format.
    """
    try:
        found = json.loads(path.read_bytes())["messages"]
        messages = [Message(role=item["role"], text=item["content"]) for item in found]
        if all(isinstance(message.text, str) for message in messages):
            return messages
        reason = "a 'content' is not text"
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise ValueError(
        f"{path} is not a saved conversation ({reason}): it must contain "
        '{"messages": [{"role": "user", "content": "…"}, …]}'
    )

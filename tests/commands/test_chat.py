"""The terminal chat: its commands, what Ctrl-C stops, and a pipe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dimgpt.cli import main
from dimgpt.commands import chat as module
from dimgpt.config import ModelConfig
from dimgpt.generation import chat as sessions
from dimgpt.model.transformer import Transformer
from dimgpt.text.byte_level import train_byte_level
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.store import save_model

ROOT = Path(__file__).parents[2]
VOCABULARY = ROOT / "tests" / "fixtures" / "dimensiongpt_sampling" / "vocab_512.txt"
CHAT = ["chat", "--model", "models/a", "--system-prompt", "Oui.", "--sampling.max-new-tokens", "3"]
SAID = [
    {"role": "system", "content": "Sois bref."},
    {"role": "user", "content": "Où ?"},
    {"role": "assistant", "content": "Là."},
]


def save_toy(folder, tokenizer):
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        context_length=80,
        window_size=None,
        embedding_dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        ffn_dim=8,
    )
    save_model(Transformer(config), folder, tokenizer)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two models of DimensionGPT's chat format, and one that cannot chat."""
    folder = tmp_path_factory.mktemp("chat")
    for name in "ab":
        save_toy(folder / "models" / name, GreedyTokenizer.load(VOCABULARY))
    plain = train_byte_level(["une phrase"], 260, special_tokens=("<|endoftext|>",))
    save_toy(folder / "models" / "plain", plain)
    save_toy(folder / "models" / "lillm", train_byte_level(["user and assistant"], 280))
    return folder


@pytest.fixture
def talk(folder, monkeypatch, capsys):
    """Return a function that types lines, and returns what was printed and the session then."""
    monkeypatch.chdir(folder)
    made = []
    begin = module._Talk.__init__

    def remember(talk, *arguments):
        begin(talk, *arguments)
        made.append(talk)

    monkeypatch.setattr(module._Talk, "__init__", remember)

    def type_lines(*lines):
        typed = iter([*lines, ""])

        def read(prompt):
            line = next(typed)
            if isinstance(line, BaseException):
                raise line
            return line

        monkeypatch.setattr("builtins.input", read)
        main(CHAT)
        return capsys.readouterr(), made[-1]._session

    return type_lines


def contents(session):
    return [message.text for message in session.messages]


def stored(path):
    return [
        (message["role"], message["content"])
        for message in json.loads(path.read_bytes())["messages"]
    ]


def test_a_system_prompt_is_replaced_or_removed_and_the_conversation_stays(talk):
    _, session = talk("Bonjour", "/system Sois  bref.")
    assert session.system_prompt == "Sois  bref."
    assert contents(session)[0] == "Bonjour"
    assert talk("/system")[1].system_prompt is None


def test_a_reset_forgets_the_conversation_and_keeps_the_system_prompt(talk):
    _, session = talk("Bonjour", "/reset", "Encore")
    assert contents(session)[::2] == ["Encore"]
    assert session.system_prompt == "Oui."


def test_what_is_saved_is_loaded_again(talk, tmp_path):
    file = tmp_path / "é à.json"
    shown, session = talk("Bonjour", f"/save {file}")
    assert f"2 messages saved to {file}" in shown.out
    said = [("system", "Oui."), ("user", "Bonjour"), ("assistant", contents(session)[1])]
    assert stored(file) == said
    _, loaded = talk("/system Non.", "Autre", f"/load {file}", f"/save {file}")
    assert loaded.messages == session.messages
    assert stored(file) == said


def test_a_file_without_a_system_message_removes_the_system_prompt(talk, tmp_path):
    file = tmp_path / "talk.json"
    file.write_text(json.dumps({"messages": SAID[1:]}))
    _, session = talk(f"/load {file}")
    assert session.system_prompt is None
    assert contents(session) == ["Où ?", "Là."]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("{", "is not a saved conversation (JSONDecodeError"),
        (b"\xff", "is not a saved conversation"),
        ("[" * 100_000, "is not a saved conversation (RecursionError"),
        ("[]", "is not a saved conversation (TypeError"),
        ({"messages": {"role": "user"}}, "is not a saved conversation (TypeError"),
        ({"messages": [{"role": "user"}]}, "is not a saved conversation (KeyError: 'content')"),
        ({"messages": [{"role": "user", "content": ["Où"]}]}, "a 'content' is not text"),
        ({"messages": SAID[:2]}, "message 1 has no answer"),
        ({"messages": [*SAID[1:], SAID[0], SAID[2]]}, "turn 2 has the roles 'system' and"),
        ({"messages": [{"role": [], "content": ""}, SAID[2]]}, "turn 1 has the roles [] and"),
    ],
)
def test_a_bad_file_is_refused_in_one_line_and_changes_nothing(talk, tmp_path, content, reason):
    file = tmp_path / "bad.json"
    if content is not None:
        text = json.dumps(content) if isinstance(content, dict) else content
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    shown, session = talk("Bonjour", f"/load {file}", "Encore")
    assert reason in shown.err
    assert shown.err.startswith("/load FILE: ")
    assert shown.err.count("\n") == 1
    assert contents(session)[::2] == ["Bonjour", "Encore"]
    assert session.system_prompt == "Oui."


def test_saving_replaces_no_file_but_a_conversation(talk, tmp_path):
    file = tmp_path / "notes.json"
    file.write_text('{"notes": 1}')
    shown, _ = talk("Bonjour", f"/save {file}")
    assert "is not a saved conversation (KeyError: 'messages')" in shown.err
    assert file.read_text() == '{"notes": 1}'


def test_a_temperature_holds_from_the_next_answer_on(talk):
    shown, session = talk("/temperature 0.5", "/temperature -1", "/temperature 0,7", "Bonjour")
    assert session.config.temperature == 0.5
    assert session.config.max_new_tokens == 3
    assert "temperature is -1.0: it must be 0 or more" in shown.err
    assert "/temperature NUMBER: could not convert string to float: '0,7'" in shown.err
    answers = [contents(talk("/temperature 0", "Bonjour")[1]) for _ in range(2)]
    assert answers[0] == answers[1]


def test_another_model_goes_on_with_the_conversation(talk):
    shown, session = talk("Bonjour", "/temperature 0", "/model models/b", "Encore")
    assert "2 messages kept" in shown.out
    assert contents(session)[::2] == ["Bonjour", "Encore"]
    assert (session.system_prompt, session.config.temperature) == ("Oui.", 0)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none", "none/config.json is missing"), ("plain", "can write no conversation")],
)
def test_a_model_that_cannot_chat_leaves_the_one_before_it(talk, name, reason):
    shown, session = talk("/system", "Bonjour", f"/model models/{name}", "Encore")
    assert reason in shown.err
    assert shown.err.count("\n") == 1
    assert contents(session)[::2] == ["Bonjour", "Encore"]


def test_a_system_prompt_waits_for_a_model_whose_format_has_one(talk, caplog):
    warning = "chat format 'lillm' has no system role: the system prompt is left out"
    _, session = talk("/model models/lillm", "a", "/system Non.", "b", "/model models/b")
    assert [record.message for record in caplog.records] == [warning] * 2
    assert session.system_prompt == "Non."
    assert contents(session)[::2] == ["a", "b"]


def test_help_names_every_command(talk):
    shown, _ = talk("/help")
    for name in ("/system", "/reset", "/save", "/load", "/temperature", "/model", "/help", "//"):
        assert f"  {name}" in shown.out


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "/rest now",
            "no command /rest (did you mean '/reset'?): /help lists them; to send this text, type "
            "//rest now",
        ),
        ("/", "no command /: /help lists them"),
        ("/save", "type /save FILE to write the conversation"),
        ("/reset the clock", "type /reset to forget"),
    ],
)
def test_a_command_that_is_none_is_one_line_and_forgets_nothing(talk, line, reason):
    shown, session = talk("Bonjour", line)
    assert shown.err.startswith(reason)
    assert shown.err.count("\n") == 1
    assert contents(session)[::2] == ["Bonjour"]


def test_two_slashes_begin_a_text_with_one(talk):
    assert contents(talk("//help me")[1])[::2] == ["/help me"]


def test_ctrl_c_stops_an_answer_and_keeps_what_was_said(talk, monkeypatch):
    whole = sessions.stream_text

    def stopped(ids, tokenizer, *stops):
        yield "Je "
        monkeypatch.setattr(sessions, "stream_text", whole)
        raise KeyboardInterrupt

    monkeypatch.setattr(sessions, "stream_text", stopped)
    shown, session = talk("Bonjour", "Encore")
    assert shown.out.startswith("Je \n")
    assert contents(session)[:3] == ["Bonjour", "Je ", "Encore"]
    assert len(session.messages) == 4


def test_ctrl_c_at_the_prompt_ends_with_status_130(talk):
    with pytest.raises(SystemExit) as stop:
        talk("Bonjour", KeyboardInterrupt())
    assert stop.value.code == 130


def test_ctrl_d_ends_the_chat(talk):
    assert contents(talk("Bonjour", EOFError())[1])[::2] == ["Bonjour"]


@pytest.mark.slow
def test_a_pipe_is_read_to_its_end_past_an_error(folder, tmp_path):
    lines = f"Bonjour\n/load none.json\n/save {tmp_path / 'talk.json'}\n"
    done = subprocess.run(
        [sys.executable, "-m", "dimgpt", *CHAT],
        input=lines.encode(),
        capture_output=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
    )
    assert done.stdout.count(b"> ") == 4
    assert b"/help lists" not in done.stdout
    assert done.stderr.decode().count("\n") == 1
    assert [role for role, _ in stored(tmp_path / "talk.json")] == ["system", "user", "assistant"]

"""Conversations in foreign formats, with broken ones among them."""

import csv
import json
from pathlib import Path

import pytest

from dimgpt.config import ConversationSourceConfig, DataConfig
from dimgpt.data.conversation import has_answer
from dimgpt.data.preparing.finishing import read_report
from dimgpt.data.preparing.items import read_conversations
from dimgpt.data.preparing.preparation import prepare_source
from dimgpt.data.token_file import TokenFile
from dimgpt.text.byte_level import train_byte_level

FOLDER = Path(__file__).parents[1] / "data" / "conversations"
FILES = {path.stem: path for path in FOLDER.iterdir()}
TOKENIZER = train_byte_level(["a"], 272)
# File -> the form that it is recognised as, and where the answer is: list or column, text, role.
FORMS = {
    "alpaca": ("Alpaca", "output", None, None),
    "dimensiongpt_instruct": ("DimensionGPT", "conversation", "text", "role"),
    "dolly": ("Dolly", "response", None, None),
    "french_instruct": ("DimensionGPT", "conversation", "text", "role"),
    "prompts_and_completions_as_lists": ("prompt_completion", "completion", "content", "role"),
    "one_message_a_record": ("message_rows", None, "text", "role"),
    "openai": ("messages", "messages", "content", "role"),
    "prompts_and_completions": ("prompt_completion", "completion", None, None),
    "prompts_and_responses": ("prompt_response", "response", None, None),
    "questions_and_answers": ("question_answer", "answer", None, None),
    "sharegpt": ("ShareGPT", "conversations", "value", "from"),
    "smoltalk_magpie": ("messages", "messages", "content", "role"),
    "users_and_assistants": ("user_assistant", "assistant", None, None),
}


def first_exchange(name):
    """Return the records of the first question and its answer."""
    path, (_, column, text, _) = FILES[name], FORMS[name]
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        records = list(csv.DictReader(content.splitlines()))
    else:
        lines = content.splitlines()
        records = json.loads(content) if path.suffix == ".json" else list(map(json.loads, lines))
    if column is None:
        return records[:2]
    if text is not None:
        turns = records[0][column]
        is_answer = [turn.get("role", turn.get("from")) in ("assistant", "gpt") for turn in turns]
        records[0][column] = turns[: is_answer.index(True) + 1]
    return records[:1]


def broken(name, kind):
    """Return the lines of such an exchange in which the answer is broken."""
    _, column, text, role = FORMS[name]
    records = first_exchange(name)
    for record in records:
        if "conversation_id" in record:
            record["conversation_id"] = kind
    holder = records[-1] if text is None or column is None else records[-1][column][-1]
    place = text or column
    if kind == "missing":
        if column is None:
            records.pop()
        elif text is not None:
            records[-1][column].pop()
        else:
            del holder[place]
    elif kind == "unknown" and role:
        holder[role] = "asistant"
    elif kind == "unknown":
        holder["asnwer"] = holder.pop(place)
    else:
        holder[place] = {"empty": " \n", "null": None, "number": 3, "cut": "Oui."}[kind]
    lines = [json.dumps(record) for record in records]
    return [*lines[:-1], lines[-1][:-9]] if kind == "cut" else lines


KINDS = ("empty", "null", "number", "missing", "unknown", "cut")


def source_of(path):
    return ConversationSourceConfig(name="talk", path=str(path), validation_ratio=0.0)


@pytest.mark.parametrize("name", FORMS)
def test_a_broken_conversation_is_named_by_its_line_or_skipped(name, tmp_path, fault):
    path = tmp_path / "talk.jsonl"
    good = [json.dumps(record) for record in first_exchange(name)]
    for kind in KINDS:
        bad = broken(name, kind)
        path.write_text("\n".join([*good, *bad]))
        with pytest.raises(ValueError, match=r"talk\.jsonl, line \d+") as caught:
            list(read_conversations(source_of(path)))
        message, numbers = str(caught.value), range(len(good) + 1, len(good) + len(bad) + 1)
        assert any(f"line {number}" in message for number in numbers), message
        assert "\n" not in message
        assert len(list(read_conversations(source_of(path), skip_bad=True))) == 1
        fault(27)

    path.write_text("\n".join([*(line for kind in KINDS for line in broken(name, kind)), *good]))
    config = DataConfig(num_workers=1, bad_records="skip")
    folder = prepare_source(source_of(path), TOKENIZER, tmp_path / "out", config=config)
    report = read_report(folder)
    assert f"read as {FORMS[name][0]}" in report.notes
    assert report.dropped["unreadable"] >= len(KINDS)
    file = TokenFile(folder, "train", fingerprint=TOKENIZER.fingerprint)
    assert file.num_documents == report.num_documents == 1
    assert has_answer(file.document(0), TOKENIZER.chat)


def said(*roles, text="a", **more):
    return {"messages": [{"role": role, "content": text, **more} for role in roles]}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (said("user", "tool", "assistant"), "message 2: the role is 'tool'"),
        (said("user", "assistant", "assistant"), "message 3: two messages of the assistant follow"),
        (said("user", "user", "assistant"), "message 2: two messages of the user follow"),
        (said("user", "assistant", text=" "), "message 1: 'content' is empty"),
        (said("user", "system", "assistant"), "message 2 is a system message"),
        (said("system", "system", "assistant"), "message 2 is a system message"),
        (said("system", "user"), "line 2 has no message of the assistant"),
        (said("user", "assistant", text=None), "message 1: 'content' is null"),
        (said("assistant", text=None, tool_calls=[{"id": "1"}]), "message 1 calls a tool"),
        (said("assistant", function_call={"name": "f"}), "message 1 calls a tool"),
        (said("user", text=[{"type": "image_url"}]), "message 1: 'content' is list"),
        ({"messages": "[]"}, "'messages' is not a list of objects with 'role' and 'content'"),
        ({"user": "a", "assistant": "b"}, "has the form 'user_assistant', but the records before"),
    ],
    ids=[*"abcdefghijklm"],
)
def test_a_conversation_that_cannot_be_learned_is_refused_with_its_reason(
    record, message, tmp_path, fault
):
    path = tmp_path / "talk.jsonl"
    path.write_text("\n".join(map(json.dumps, (said("user", "assistant"), record))))
    with pytest.raises(ValueError, match=r"talk\.jsonl, line 2") as caught:
        list(read_conversations(source_of(path)))
    assert message in str(caught.value)
    assert len(list(read_conversations(source_of(path), skip_bad=True))) == 1
    fault(27)

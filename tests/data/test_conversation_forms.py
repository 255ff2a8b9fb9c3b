"""The tables of docs/conversations.md: each row is read here, from a file as people have it."""

import csv
import json
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pyarrow
import pyarrow.parquet
import pytest

from dimgpt.config import ConversationSourceConfig, DataConfig
from dimgpt.data.preparing.finishing import read_report
from dimgpt.data.preparing.items import read_conversations
from dimgpt.data.preparing.preparation import prepare_source
from dimgpt.data.records import FORMS, ROLES, to_conversation

PAGE = (Path(__file__).parents[2] / "docs" / "conversations.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+?) \| `(\{.+\})` \| `(\w+)` \|$", PAGE, re.MULTILINE)
FILES = {path.stem: path for path in (Path(__file__).parent / "conversations").iterdir()}

SYSTEM = ("system", "Tu réponds en une phrase.")
ASKED = ("user", "Quelle est la capitale du Portugal ?")
ANSWERED = ("assistant", "La capitale du Portugal est Lisbonne.")
LATER = [("user", "Et son fleuve ?"), ("assistant", "Le Tage traverse Lisbonne.")]
CONTEXT = "Le Portugal est un pays du sud de l'Europe, dont la capitale est Lisbonne."
FIRST = [ASKED, ANSWERED]
EXPECTED = {
    "dimensiongpt_instruct": [[*FIRST, *LATER], [("human", ASKED[1]), ("human", ANSWERED[1])]],
    "french_instruct": [[("user", f"{CONTEXT}\n\n{ASKED[1]}"), ANSWERED], LATER],
    "smoltalk_magpie": [[SYSTEM, *FIRST, *LATER], FIRST],
    "openai": [[SYSTEM, *FIRST], FIRST],
    "sharegpt": [[*FIRST, *LATER], [SYSTEM, *FIRST, *LATER]],
    "alpaca": [FIRST, [("user", f"Réponds d'après le texte.\n\n{CONTEXT}"), ANSWERED]],
    "dolly": [FIRST, [("user", f"{CONTEXT}\n\nRéponds d'après le texte."), ANSWERED]],
    "prompts_and_completions_as_lists": [[SYSTEM, *FIRST], LATER],
    "users_and_assistants": [[SYSTEM, *FIRST], LATER],
    **dict.fromkeys(
        (
            "prompts_and_completions",
            "prompts_and_responses",
            "questions_and_answers",
            "one_message_a_record",
        ),
        [FIRST, LATER],
    ),
}


def turns(conversation):
    return [(message.role, message.text) for message in conversation.messages]


def read(path, **settings):
    source = ConversationSourceConfig(name="talk", path=str(path), **settings)
    return [turns(conversation) for conversation in read_conversations(source)]


def records_of(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return list(csv.DictReader(text.splitlines()))
    return json.loads(text) if path.suffix == ".json" else list(map(json.loads, text.splitlines()))


def names_in(value):
    """Return the columns of a record, and those of its messages."""
    if isinstance(value, list):
        return {name for one in value for name in names_in(one)}
    return {*value, *names_in(list(value.values()))} if isinstance(value, dict) else set()


@pytest.mark.parametrize(("files", "example", "form"), ROWS, ids=[row[0] for row in ROWS])
def test_each_row_of_the_table_is_read_from_a_file_of_that_kind(files, example, form, tmp_path):
    path = FILES[re.sub(r"\W+", "_", files.lower())]
    records = records_of(path)
    assert names_in(json.loads(example)) <= names_in(records)
    expected = EXPECTED[path.stem]
    assert read(path) == read(path, form=form) == expected
    (tmp_path / "a.json").write_text(json.dumps(records, indent=1))
    assert read(tmp_path / "a.json") == expected
    if path.stem != "openai":  # a column of Parquet has one type
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet")
        assert read(tmp_path / "a.parquet") == expected


def test_the_table_has_every_form_and_every_role():
    assert {form for _, _, form in ROWS} == FORMS.keys()
    assert len(ROWS) == len(EXPECTED) == len(FILES)
    (choices, _) = get_args(get_type_hints(ConversationSourceConfig)["form"])
    assert [*get_args(choices)] == [*FORMS]
    found = re.findall(r"^\| (system|user|assistant) \| (.+) \|$", PAGE, re.MULTILINE)
    said = {name: role for role, names in found for name in re.findall("`(.+?)`", names)}
    assert said == ROLES


def test_a_preparation_says_what_it_read_each_file_as(tokenizer, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("sharegpt.jsonl", "alpaca.json"):
        (tmp_path / "in" / name).write_bytes(FILES[name.partition(".")[0]].read_bytes())
    source = ConversationSourceConfig(name="talk", path=str(tmp_path / "in"))
    config = DataConfig(validation_ratio=0.5, num_workers=1)
    folder = prepare_source(source, tokenizer, tmp_path / "out", config=config)
    assert read_report(folder).notes[:2] == ["read as Alpaca", "read as ShareGPT"]


@pytest.mark.parametrize("human", ["human", "Human", "prompter", "user"])
@pytest.mark.parametrize("bot", ["bot", "GPT", "model", "ai", "chatbot"])
def test_known_names_of_roles_are_the_user_and_the_assistant(human, bot):
    record = {"messages": [{"role": human, "content": "a"}, {"role": bot, "content": "b"}]}
    assert turns(to_conversation("here", record)) == [("user", "a"), ("assistant", "b")]


def test_a_column_of_another_meaning_is_not_taken_for_messages():
    pair = {"question": "a", "answer": "b"}
    for other in (
        {"messages": 3},
        {"conversation_id": "x"},
        {"conversation": "forum"},
        {"user": "x"},
    ):
        assert turns(to_conversation("here", {**other, **pair})) == [
            ("user", "a"),
            ("assistant", "b"),
        ]
    record = {"user": "anna", "assistant": "1", **pair}
    assert turns(to_conversation("here", record, "question_answer"))[0] == ("user", "a")


def test_people_who_talk_are_imitated_in_the_form_of_dimensiongpt_alone():
    talk = [{"role": "human", "text": text} for text in "ab"]
    assert turns(to_conversation("here", {"conversation": talk})) == [
        ("human", "a"),
        ("human", "b"),
    ]
    with pytest.raises(ValueError, match="two messages of the user"):
        to_conversation("here", {"messages": talk})
    answered = {"conversation": [talk[0], {"role": "bot", "text": "b"}]}
    with pytest.raises(ValueError, match="here: in the form DimensionGPT, 'human'"):
        to_conversation("here", answered)
    read_otherwise = to_conversation("here", answered, "messages")
    assert turns(read_otherwise) == [("user", "a"), ("assistant", "b")]


def test_messages_without_an_id_are_not_joined_to_one_conversation(tmp_path):
    path = tmp_path / "talk.csv"
    path.write_text("conversation_id,role,text\n,user,a\n,assistant,b\n,user,c\n,assistant,d\n")
    with pytest.raises(ValueError, match="line 2 has no 'conversation_id'"):
        list(read_conversations(ConversationSourceConfig(name="a", path=str(path))))


def test_where_every_record_is_skipped_the_way_to_the_reason_is_said(tmp_path):
    path = tmp_path / "talk.jsonl"
    path.write_text('{"instruction": "a", "reply": "b"}\n')
    with pytest.raises(ValueError, match="all 1 records were skipped: bad_records 'refuse' shows"):
        list(read_conversations(ConversationSourceConfig(name="a", path=str(path)), skip_bad=True))

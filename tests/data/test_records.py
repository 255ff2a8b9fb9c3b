import csv
import io
import re

import pytest

from dimgpt.config import SourceConfig
from dimgpt.data.records import (
    document_of,
    form_of,
    names_of,
    text_of,
    to_conversation,
    to_conversations,
)

TEMPLATE = SourceConfig(name="a", path="x", text_template="{title}\n\n{text}")


def test_a_document_is_the_text_of_its_column_untouched():
    source = SourceConfig(name="a", path="x", text_column="body")
    assert document_of("row 1", {"body": " a\n", "text": "b"}, source) == " a\n"


@pytest.mark.parametrize(
    ("values", "document"),
    [
        ({"title": " Un titre ", "text": "Un texte.\n"}, "Un titre\n\nUn texte."),
        ({"title": None, "text": "Un texte."}, "Un texte."),
        ({"title": "Un titre", "text": ""}, "Un titre"),
        ({"title": "", "text": None}, ""),
        ({"title": "{text} {0}", "text": "{title.__class__}"}, "{text} {0}\n\n{title.__class__}"),
    ],
)
def test_a_template_joins_its_columns_and_reads_nothing_into_them(values, document):
    assert document_of("row 1", values, TEMPLATE) == document


def test_a_template_around_nothing_is_nothing():
    source = SourceConfig(name="a", path="x", text_template="Titre : {title}")
    assert document_of("row 1", {"title": " "}, source) == ""
    assert document_of("row 1", {"title": "A"}, source) == "Titre : A"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": "a"}, "a.csv, row 3 has no 'title': it has 'text'; correct text_template"),
        ({"title": 3, "text": "a"}, "a.csv, row 3: 'title' is int: it must be text"),
        ({}, "a.csv, row 3 has no 'title': it has nothing; correct text_template"),
    ],
)
def test_a_column_that_is_missing_or_no_text_is_named_with_its_place(values, message):
    with pytest.raises(ValueError, match="row 3") as caught:
        document_of("a.csv, row 3", values, TEMPLATE)
    assert str(caught.value) == message


def test_null_is_no_text_where_it_is_the_whole_document():
    with pytest.raises(ValueError, match="'text' is null"):
        text_of("row 1", {"text": None}, "text")
    assert names_of({"a": 1, "b": 2}) == "'a', 'b'"


def turns(conversation):
    return [(message.role, message.text) for message in conversation.messages]


def read(*records):
    rows = [(f"a.jsonl, line {number}", record) for number, record in enumerate(records, start=1)]
    return [turns(one) for one in map(good, to_conversations(rows))]


def good(conversation):
    if isinstance(conversation, ValueError):
        raise conversation
    return conversation


ASKED = [("user", "Ça va ?"), ("assistant", "Oui.")]


@pytest.mark.parametrize("name", ["conversation", "messages"])
@pytest.mark.parametrize("text", ["text", "content"])
def test_lists_of_messages_are_read_by_either_name(name, text):
    record = {"id": 3, name: [{"role": role, text: said, "more": None} for role, said in ASKED]}
    assert read(record) == [ASKED]


@pytest.mark.parametrize("pair", [("user", "assistant"), ("question", "answer")])
def test_a_question_and_its_answer_are_a_conversation(pair):
    record = dict(zip(pair, ("Ça va ?", "Oui."), strict=True))
    assert read(record, {**record, "system": "Sois bref.", "id": "7"}) == [
        ASKED,
        [("system", "Sois bref."), *ASKED],
    ]
    assert read({**record, "system": ""}, {**record, "system": None}) == [ASKED, ASKED]


def test_records_of_one_message_are_joined_by_their_id():
    def row(id, role, text):
        return {"conversation_id": id, "role": role, "text": text}

    assert read(
        row("1", "user", "a"),
        row("1", "assistant", "b"),
        row("1", "user", "c"),
        row("2", "assistant", "d"),
        row("1", "assistant", "e"),
    ) == [
        [("user", "a"), ("assistant", "b"), ("user", "c")],
        [("assistant", "d")],
        [("assistant", "e")],
    ]
    pair = {"question": "f", "answer": "g"}
    assert read(pair, pair) == [[("user", "f"), ("assistant", "g")]] * 2


def test_a_csv_of_conversations_is_read():
    table = 'conversation_id,role,text\n1,User,"Un, deux ?"\n1, assistant ,Trois.\n2,bot,Bof\n'
    assert read(*csv.DictReader(io.StringIO(table))) == [
        [("user", "Un, deux ?"), ("assistant", "Trois.")],
        [("assistant", "Bof")],
    ]


def test_a_context_opens_the_first_message_of_the_user():
    def record(context, *said):
        messages = [{"role": role, "text": text} for role, text in said]
        return {"context": context, "conversation": messages}

    answered = (*ASKED, ("user", "Encore ?"))
    assert read(record(" Un texte.\n", ("system", "Bref."), *answered)) == [
        [("system", "Bref."), ("user", "Un texte.\n\nÇa va ?"), *answered[1:]]
    ]
    assert read(record("", *ASKED), record(None, *ASKED), record(" ", *ASKED)) == [ASKED] * 3
    assert read(record("Un texte.", ("assistant", "Oui."))) == [
        [("user", "Un texte."), ("assistant", "Oui.")]
    ]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "line 1 is not a conversation: it has nothing"),
        ({"text": "a"}, "line 1 is not a conversation: it has 'text'"),
        ({"user": "a"}, "line 1 is not a conversation"),
        ({"messages": "a"}, "line 1: 'messages' is not a list"),
        ({"conversation": ["a"]}, "line 1: 'conversation' is not a list of objects"),
        ({"conversation": [{"text": "a"}]}, "line 1, message 1 has no 'role': it has 'text'"),
        ({"messages": [{"role": "user"}]}, "message 1 has no 'content' or 'text': it has 'role'"),
        ({"messages": [{"role": "user", "content": None}]}, "'content' is null"),
        ({"messages": [{"role": " ", "content": "a"}]}, "the role is ' ': it must be one of"),
        ({"messages": [], "context": 3}, "'context' is int"),
        ({"question": "a", "answer": " "}, "line 1: 'answer' is empty"),
        ({"question": "a", "answer": None}, "line 1: 'answer' is null"),
        ({"user": "a", "assistant": "b", "system": 3}, "'system' is int: it must be text"),
        ({"conversation_id": "1", "text": "a"}, "line 1 is not a conversation"),
    ],
    ids=str,
)
def test_what_is_no_conversation_is_named_by_its_place_and_left_out(record, message):
    rows = [("a.jsonl, line 1", record), ("a.jsonl, line 2", ValueError("line 2 is not JSON"))]
    bad, unreadable, *_ = to_conversations(rows)
    assert re.search(message, str(bad))
    assert "\n" not in str(bad)
    assert unreadable is rows[1][1]
    form = form_of(record) or "question_answer"
    kept = {"DimensionGPT": "conversation"}.get(form, "messages")
    last = {kept: [{"role": role, "text": said} for role, said in ASKED]}
    if form in ("question_answer", "user_assistant"):
        last = dict(zip(form.split("_"), ("Ça va ?", "Oui."), strict=True))
    *_, after = to_conversations([*rows, ("a.jsonl, line 3", last)])
    assert turns(after) == ASKED


def test_a_bad_message_takes_its_whole_conversation_with_it():
    rows = [
        ("row 1", {"conversation_id": 1, "role": "user", "text": "a"}),
        ("row 2", {"conversation_id": 1, "role": "assistant", "text": None}),
        ("row 3", {"conversation_id": 2, "role": "assistant", "text": "c"}),
    ]
    bad, kept = to_conversations(rows)
    assert "row 2" in str(bad)
    assert turns(kept) == [("assistant", "c")]


def test_an_error_while_reading_is_not_taken_for_a_bad_record():
    def rows():
        yield "row 1", {"question": "a", "answer": "b"}
        raise ValueError("the file is cut short")

    with pytest.raises(ValueError, match="cut short"):
        list(to_conversations(rows()))


def test_one_record_can_be_turned_by_itself():
    assert turns(to_conversation("here", {"question": "Ça va ?", "answer": "Oui."})) == ASKED

"""Records with two answers, of which one is better."""

import dataclasses
import json

import numpy as np
import pytest

from dimgpt.config import ConversationSourceConfig, DataConfig, PreferenceSourceConfig
from dimgpt.data.conversation import Message, encode_conversation, split_pair
from dimgpt.data.preferences import to_preference
from dimgpt.data.preparing.encoding import encode_chunk
from dimgpt.data.preparing.items import read_conversations
from dimgpt.data.preparing.listing import list_source

USER, ANSWER, OTHER = ("user", "Ça va ?"), ("assistant", "Oui."), ("assistant", "Bof.")
SYSTEM = ("system", "Sois bref.")

SHARED = {
    "chosen": [{"from": "gpt", "value": "Oui."}],
    "rejected": [{"from": "gpt", "value": "Bof."}],
}


def messages(*turns):
    return [{"role": role, "content": text} for role, text in turns]


def read(record):
    preference = to_preference("a.jsonl, line 1", record)
    said = [(message.role, message.text) for message in preference.messages]
    return said, (preference.rejected.role, preference.rejected.text)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "Ça va ?", "chosen": "Oui.", "rejected": "Bof."},
        {"question": "Ça va ?", "chosen": "Oui.", "rejected": "Bof.", "system": ""},
        {"messages": messages(USER), "chosen": "Oui.", "rejected": "Bof."},
        {"prompt": messages(USER), "chosen": messages(ANSWER), "rejected": messages(OTHER)},
        {"chosen": messages(USER, ANSWER), "rejected": messages(USER, OTHER)},
        {"conversations": [{"from": "human", "value": "Ça va ?"}], **SHARED},
        {
            "prompt": "Ça va ?",
            "chosen": messages(USER, ANSWER),
            "rejected": messages(USER, OTHER),
        },
    ],
)
def test_answers_are_texts_or_messages_after_a_prompt_or_alone(record):
    assert read(record) == ([USER, ANSWER], OTHER)


def test_what_was_said_before_stays_with_both_answers():
    before = (SYSTEM, USER, ANSWER, ("user", "Encore ?"))
    record = {"messages": messages(*before), "chosen": "Oui.", "rejected": "Bof."}
    assert read(record) == ([*before, ANSWER], OTHER)
    record = {"question": "Ça va ?", "chosen": "Oui.", "rejected": "Bof.", "system": SYSTEM[1]}
    assert read(record) == ([SYSTEM, USER, ANSWER], OTHER)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "a", "chosen": "b ", "rejected": "b"}, "line 1: .* are the same answer"),
        ({"prompt": "a", "chosen": "b"}, "line 1 has no 'rejected': it has 'prompt', 'chosen'"),
        ({"prompt": "a", "chosen": " ", "rejected": "b"}, "line 1, 'chosen', .* is empty"),
        ({"prompt": "a", "chosen": "b", "rejected": None}, "'rejected', .* 'content' is null"),
        ({"chosen": "a", "rejected": "b"}, "to a 'prompt' or to messages before it"),
        (
            {"chosen": messages(USER, ANSWER), "rejected": messages(("human", "Et ?"), OTHER)},
            "answer different conversations",
        ),
        ({"prompt": "a", "chosen": messages(USER), "rejected": "b"}, "two messages of the user"),
        ({"chosen": messages(USER, ANSWER, USER), "rejected": "b"}, "must end with an answer"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_place(record, message):
    with pytest.raises(ValueError, match=message):
        to_preference("a.jsonl, line 1", record)


def test_a_bad_pair_of_a_file_is_refused_or_skipped(tmp_path):
    good, bad = ({"prompt": "a", "chosen": "b", "rejected": said} for said in ("c", "b"))
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in (good, bad, good)))
    source = PreferenceSourceConfig(name="x", path=str(path))
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: .* same answer; correct or remove"):
        list(read_conversations(source))
    assert len(list(read_conversations(source, skip_bad=True))) == 2


def test_a_pair_is_one_document_and_keyed_by_its_question(tokenizer):
    records = [
        {"prompt": "le chat", "chosen": "a", "rejected": "b"},
        {"prompt": "le chat", "chosen": "c d e f", "rejected": "a"},
        {"prompt": "la", "chosen": "a", "rejected": "b"},
    ]
    pairs = [to_preference("here", record) for record in records]
    chunk = encode_chunk(pairs, tokenizer, DataConfig())
    assert chunk.keys[0] == chunk.keys[1] != chunk.keys[2]
    first = chunk.ids[: chunk.lengths[0]]
    assert first.tolist() == encode_conversation(pairs[0], tokenizer)
    conversation, better, rejected = split_pair(first, tokenizer.chat)
    opener = tokenizer.chat.assistant_opener
    user = tokenizer.chat.encode_message("user", "le chat")
    assert [conversation.tolist(), better.tolist(), rejected.tolist()] == [
        user,
        [*opener, *tokenizer.encode("a")],
        [*opener, *tokenizer.encode("b")],
    ]


def test_both_answers_are_composed_and_read_with_what_was_said_before(tokenizer):
    record = {"prompt": "e\u0301", "chosen": "a", "rejected": "u\u0300"}
    pair = to_preference("here", record)
    composed = dataclasses.replace(
        pair,
        messages=(Message(role="user", text="é"), pair.messages[1]),
        rejected=Message(role="assistant", text="ù"),
    )
    chunk = encode_chunk([pair], tokenizer, DataConfig(compose_accents=True))
    assert chunk.ids.tolist() == encode_conversation(composed, tokenizer)


def test_answers_that_cleaning_empties_or_makes_equal_are_dropped_and_counted(tokenizer):
    answers = [("a", "\0"), ("\0", "a"), ("a", "\0a"), ("a", "b")]
    pairs = [
        to_preference("here", {"prompt": "la", "chosen": better, "rejected": worse})
        for better, worse in answers
    ]
    chunk = encode_chunk(pairs, tokenizer, DataConfig())
    assert chunk.report.dropped == {"empty": 2, "same_answers": 1}
    assert len(chunk.lengths) == 1


def test_a_document_that_is_no_pair_is_refused(tokenizer):
    with pytest.raises(ValueError, match="is no pair of answers"):
        split_pair(np.array(tokenizer.chat.encode_message("user", "a")), tokenizer.chat)


def test_preferences_have_no_system_prompts_of_their_group():
    with pytest.raises(ValueError, match="their records bring their own system"):
        PreferenceSourceConfig(name="x", path="x", system_prompts_path="y")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (ConversationSourceConfig, "demo://preferences/9"),
        (PreferenceSourceConfig, "demo://conversations/9"),
    ],
)
def test_the_demos_texts_are_refused_where_they_do_not_belong(kind, path):
    with pytest.raises(ValueError, match="demo://preferences/N, and other sources"):
        list_source(kind(name="x", path=path))

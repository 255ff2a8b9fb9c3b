import random

import numpy as np
import pytest

from dimgpt.config import DataConfig
from dimgpt.data.conversation import Conversation, Message
from dimgpt.data.preparing import encoding
from dimgpt.data.preparing.encoding import encode_chunk
from dimgpt.data.preparing.splits import split_key

RULES = DataConfig(min_document_characters=4)


def test_documents_are_enclosed_and_counted(tokenizer):
    chunk = encode_chunk(["  le chat", "ou\n\nnon"], tokenizer, RULES)
    first, second = tokenizer.encode("le chat"), tokenizer.encode("ou\n\nnon")
    assert chunk.ids.tolist() == [2, *first, 9, 2, *second, 9]
    assert chunk.lengths.tolist() == [len(first) + 2, len(second) + 2]
    assert chunk.num_characters.tolist() == [7, 7]
    assert chunk.num_bytes.tolist() == [7, 7]


def test_short_and_empty_documents_are_dropped(tokenizer):
    chunk = encode_chunk(["abc     ", "\u200b\u200b\u200b\u200b", "", "abcd"], tokenizer, RULES)
    assert len(chunk.lengths) == 1
    assert chunk.report.dropped.total() == 3
    assert encode_chunk([""], tokenizer, RULES).ids.dtype == np.uint16


def test_bytes_are_those_of_the_cleaned_text(tokenizer):
    chunk = encode_chunk(["« été »"], tokenizer, RULES)
    assert chunk.num_characters.tolist() == [5]  # "été" between straight quotes
    assert chunk.num_bytes.tolist() == [7]
    assert chunk.num_raw_bytes.tolist() == [len("« été »".encode())]
    turn = Conversation(messages=(Message(role="user", text="« été »"),))
    assert encode_chunk([turn], tokenizer, RULES).num_raw_bytes.tolist() == [11]


def test_accents_are_composed_only_when_asked(tokenizer):
    text = "e\u0301te\u0301 chaud"
    composed = DataConfig(min_document_characters=4, compose_accents=True)
    turn = Conversation(messages=(Message(role="user", text=text),))
    for item in (text, turn):
        assert encode_chunk([item], tokenizer, RULES).num_bytes.tolist() == [9]
        assert encode_chunk([item], tokenizer, composed).num_bytes.tolist() == [11]


def test_conversations_are_not_enclosed_and_never_too_short(tokenizer):
    turn = Conversation(messages=(Message(role="user", text="a"),))
    silent = Conversation(messages=(Message(role="user", text=" "),))
    chunk = encode_chunk([turn, silent], tokenizer, RULES)
    assert chunk.ids.tolist() == [7, *tokenizer.encode("a")]
    assert chunk.report.dropped.total() == 1


def test_near_copies_share_their_key():
    text = "Il était une fois un chat. " * 10
    assert split_key(text, seed=0) == split_key(text.upper() + "Fin.", seed=0)
    assert split_key(text, seed=0) != split_key(text, seed=1)
    assert split_key("2 + 3", seed=0) != split_key("2 + 4", seed=0)


@pytest.mark.parametrize("composes", [False, True])
def test_a_long_document_is_encoded_piece_by_piece_like_a_short_one(
    tokenizer, monkeypatch, composes
):
    pieces = [
        "le chat",
        "\u200b",
        "  ",
        "\n\n\n",
        " \n",
        "e\u0301",
        "\ta",
        "\ud800",
        "été.",
        "🙂",
        "\r\n",
    ]
    generator = random.Random(0)
    text = "".join(generator.choice([*pieces, " a", "\nb", ". c"]) for _ in range(2_000))
    rules = DataConfig(min_document_characters=4, compose_accents=composes)
    whole = encode_chunk([text], tokenizer, rules)
    monkeypatch.setattr(encoding, "_LONG_CHARACTERS", 50)
    assert len(list(encoding._clean_pieces(text, tokenizer, compose_accents=composes))) > 20
    in_pieces = encode_chunk([text], tokenizer, rules)
    assert in_pieces.ids.tolist() == whole.ids.tolist()
    assert in_pieces.num_characters.tolist() == whole.num_characters.tolist()
    assert in_pieces.num_bytes.tolist() == whole.num_bytes.tolist()


@pytest.mark.parametrize("text", ["\u200b" * 200, " " * 200, "a" * 200, "\n" * 99 + "a"])
def test_a_long_document_without_a_place_to_cut_is_one_piece(tokenizer, monkeypatch, text):
    whole = encode_chunk([text], tokenizer, RULES)
    monkeypatch.setattr(encoding, "_LONG_CHARACTERS", 50)
    in_pieces = encode_chunk([text], tokenizer, RULES)
    assert in_pieces.ids.tolist() == whole.ids.tolist()
    assert in_pieces.report.dropped == whole.report.dropped


def test_a_conversation_with_a_message_that_cleaning_empties_is_dropped(tokenizer):
    def talk(answer):
        messages = (Message(role="user", text="ça va ?"), Message(role="assistant", text=answer))
        return Conversation(messages=messages)

    chunk = encode_chunk([talk("\U000110d0"), talk("oui")], tokenizer, DataConfig())
    assert len(chunk.lengths) == 1
    assert chunk.report.dropped == {"empty": 1}

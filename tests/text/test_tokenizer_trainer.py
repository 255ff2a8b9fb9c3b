import hashlib
import lzma
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest

from dimgpt.text import tokenizer_trainer
from dimgpt.text.alphabet import ALPHABET, ASCII, FRENCH_LETTERS
from dimgpt.text.cleaning import normalize_text, split_words
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.text.special_tokens import SPECIAL_TOKENS
from dimgpt.text.tokenizer_trainer import count_words, train_vocabulary

ROOT = Path(__file__).parents[2]


def made_up_documents(num_documents: int = 300) -> list[str]:
    """French-looking words drawn with a fixed seed, rare ones rarely."""
    draw = random.Random(0)
    syllables = "la ré mi pa tou né quel vo ci lou ba jet ton ris grô fê".split()
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 4))) for _ in range(4_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    return [
        " ".join(draw.choices(words, weights, k=100)) + f", {draw.randint(0, 3000)} 🐱 «fin»."
        for _ in range(num_documents)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("vocab_size", [163, 600, 1425, 1426, 2000])
def test_a_vocabulary_has_exactly_its_size_and_loads(tmp_path, vocab_size):
    tokens = train_vocabulary(made_up_documents(), vocab_size)
    assert len(tokens) == vocab_size
    assert tuple(tokens[:10]) == SPECIAL_TOKENS
    GreedyTokenizer(tokens).save(tmp_path / "vocab.txt")
    assert GreedyTokenizer.load(tmp_path / "vocab.txt").tokens == tuple(tokens)


@pytest.mark.slow
def test_tokens_obey_the_rules():
    for token in train_vocabulary(made_up_documents(), 2000)[10:]:
        assert len(token) <= 16
        assert sum(character.isdigit() for character in token) <= 1
        assert set(token) <= set(ALPHABET)
        assert len(token) <= 4 or not token.endswith(" ")


@pytest.mark.slow
def test_digits_and_the_models_name_are_in():
    tokens = set(train_vocabulary(made_up_documents(), 600))
    assert tokens >= {*"0123456789", *(f" {digit}" for digit in range(10))}
    assert tokens >= {"Dimension", " Dimension", "GPT", " GPT", "IA", " IA", "Transformer"}


@pytest.mark.slow
def test_a_large_vocabulary_holds_the_whole_alphabet():
    assert set(train_vocabulary(made_up_documents(), 1426)) >= set(ALPHABET)


@pytest.mark.slow
def test_a_small_vocabulary_keeps_ascii_french_and_what_occurs():
    tokens = set(train_vocabulary(made_up_documents(), 600))
    assert tokens >= {*ASCII, *FRENCH_LETTERS, "🐱"}
    assert "🐶" not in tokens


@pytest.mark.slow
def test_many_different_characters_leave_room_for_words():
    documents = [*made_up_documents(), *(emoji * 3 for emoji in ALPHABET[150:])]
    tokens = train_vocabulary(documents, 600)
    assert sum(len(token) == 1 for token in tokens) == 295


@pytest.mark.slow
def test_no_unknown_token_is_needed_for_the_text_it_was_trained_on():
    documents = made_up_documents()
    tokenizer = GreedyTokenizer(train_vocabulary(documents, 600))
    assert not any(0 in tokenizer.encode(document) for document in documents)


@pytest.mark.slow
def test_frequent_tokens_come_first_and_ties_by_text():
    tokens = train_vocabulary(made_up_documents(), 1426)
    unused = [token for token in tokens if len(token) == 1 and ord(token) > 0x1F000]
    unused.remove("🐱")
    assert unused == sorted(unused)
    assert tokens.index(" ") < tokens.index(unused[0])


def test_documents_are_read_one_at_a_time_and_progress_counts_their_characters():
    seen = []
    documents = made_up_documents(50)
    train_vocabulary((document for document in documents), 200, progress=seen.append)
    assert len(seen) == 50
    assert seen[-1] == sum(map(len, documents))


def test_words_are_counted_after_cleaning():
    counts = count_words(["L’an\n2024 \n", "l'an"])
    assert counts == {
        **{"L": 1, "l": 1, "'": 2, "an": 2, "2024": 1},
        **{"⮜new-line⮞": 1, "⮜tab⮞": 0, "⮜start-of-text⮞": 2, "⮜end-of-text⮞": 2},
    }


def test_counts_that_do_not_fit_in_memory_at_once_are_the_same():
    documents = made_up_documents(50)
    with mock.patch.object(tokenizer_trainer, "_MAX_STRETCHES", 100):
        counts = count_words(documents)
    words = (word for document in documents for word in split_words(normalize_text(document)))
    expected = Counter(words)
    assert counts - expected == {"⮜start-of-text⮞": 50, "⮜end-of-text⮞": 50}
    assert expected - counts == {}


def test_too_little_text_is_an_error_that_says_how_many_tokens_there_are():
    with pytest.raises(ValueError, match=r"vocab_size is 600: .* only \d+ tokens; give more text"):
        train_vocabulary(["Un petit texte."], 600)


def test_too_small_a_size_is_an_error():
    with pytest.raises(ValueError, match="vocab_size is 100: it must be at least 163"):
        train_vocabulary(made_up_documents(), 100)


@pytest.mark.slow
def test_a_vocabulary_is_the_same_in_every_process_and_version():
    code = (
        "import hashlib, runpy\n"
        f"made_up_documents = runpy.run_path({str(__file__)!r})['made_up_documents']\n"
        "from dimgpt.text.tokenizer_trainer import train_vocabulary\n"
        "tokens = train_vocabulary(made_up_documents(), 1000)\n"
        "print(hashlib.sha256('\\n'.join(tokens).encode()).hexdigest())"
    )
    tokens = train_vocabulary(made_up_documents(), 1000)
    expected = hashlib.sha256("\n".join(tokens).encode()).hexdigest()
    assert expected == "3f77781a66fafc6f760c9a665d009bfe6370614521f3247b0856a585192f5efd"
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == expected


@pytest.mark.slow
def test_the_recipe_gives_the_originals_tokens(shared_dir, tokenizer):
    text = lzma.decompress((shared_dir / "tokenizer_data.txt.xz").read_bytes()).decode()
    text = text[: text.rindex("⮜end-of-text⮞")]  # a line with the alphabet follows
    text = text.replace("⮜new-line⮞", "\n").replace("⮜tab⮞", "\t")
    documents = text.removeprefix("⮜start-of-text⮞").split("⮜end-of-text⮞⮜start-of-text⮞")
    shared = set(train_vocabulary(documents, 2000)).intersection(tokenizer.tokens)
    assert len(shared) >= 1_995

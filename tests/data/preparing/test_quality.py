import gzip
import itertools
import json
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

from dimgpt.config import QualityConfig
from dimgpt.data.preparing import quality
from dimgpt.data.preparing.quality import (
    EXACT_DUPLICATE,
    LANGUAGE,
    NEAR_DUPLICATE,
    TOO_LONG,
    Deduplicator,
    duplicate_keys,
    num_duplicate_keys,
    reason_to_drop,
)
from dimgpt.demo.corpus import stories

ROOT = Path(__file__).parents[3]
FRENCH = ROOT.parent / "shared" / "data" / "french"
EXACT = QualityConfig(drop_exact_duplicates=True)
NEAR = QualityConfig(drop_near_duplicates=True)
BOTH = QualityConfig(drop_exact_duplicates=True, drop_near_duplicates=True)
WORDS = [f"{start}{end}" for start in "bcdfglmnprst" for end in ("a", "eau", "ille", "oir", "u")]


def document(seed, *, num_sentences=30):
    random = Random(seed)
    sentences = (" ".join(random.choices(WORDS, k=12)) for _ in range(num_sentences))
    return " ".join(f"{sentence.capitalize()}." for sentence in sentences)


def with_one_sentence_changed(text, seed):
    sentences = text.split(". ")
    place = Random(seed).randrange(len(sentences))
    sentences[place] = document(10_000 + seed, num_sentences=1)[:-1]
    return ". ".join(sentences)


def keys_of(texts, config):
    empty = np.zeros((0, num_duplicate_keys(config)), dtype=np.uint64)
    return np.vstack([empty, *(duplicate_keys(text, config) for text in texts)])


def reasons(texts, config=BOTH):
    return Deduplicator(config).reasons(keys_of(texts, config))


def test_nothing_is_dropped_by_default():
    assert reason_to_drop("x" * 100_000, QualityConfig()) is None
    assert duplicate_keys("a", QualityConfig()).shape == (0,)
    assert reasons(["a", "a"], QualityConfig()) == [None, None]


@pytest.mark.parametrize(("text", "reason"), [("a" * 9, None), (" aaaaaaaaaa\n", TOO_LONG)])
def test_a_document_is_too_long_by_its_stripped_length(text, reason):
    assert reason_to_drop(text, QualityConfig(max_characters=9)) == reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Il était une fois un prince qui habitait un château au bord de la mer.", "fr"),
        ("The quick brown fox jumps over the lazy dog and goes home to sleep.", "en"),
        ("Lo rainard brun e rapid sauta per dessus lo can e puèi tòrna a l'ostal.", "oc"),
        ("Rena mawon rapid la sote sou chen parese a epi li tounen lakay li pou l dòmi.", "ht"),
        ("Быстрая рыжая лиса прыгает через ленивую собаку и идёт домой спать.", "ru"),
    ],
)
def test_a_document_is_dropped_when_its_language_is_not_asked_for(text, language):
    pytest.importorskip("py3langid")
    french = QualityConfig(languages=("fr",))
    assert reason_to_drop(text, french) == (None if language == "fr" else LANGUAGE)
    assert reason_to_drop(text, QualityConfig(languages=("fr", language))) is None


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", " \n", "\ud800\x00", "123", "🙂" * 50])
def test_text_without_language_is_no_error(text):
    pytest.importorskip("py3langid")
    assert reason_to_drop(text, QualityConfig(languages=("fr",))) in (None, LANGUAGE)


@pytest.mark.slow
def test_a_language_that_cannot_be_told_is_refused_with_the_known_ones():
    pytest.importorskip("py3langid")
    with pytest.raises(ValueError, match=r"xq is unknown; choose from .* fr "):
        reason_to_drop("bonjour", QualityConfig(languages=("fr", "xq")))


def test_exact_copies_are_dropped_and_what_differs_by_a_letter_is_kept():
    texts = ["Un chat.", "Un chat!", "Un chat.", "un chat.", "Un chat."]
    assert reasons(texts, EXACT) == [None, None, EXACT_DUPLICATE, None, EXACT_DUPLICATE]


@pytest.mark.slow
def test_a_document_with_one_sentence_changed_is_a_near_copy():
    pytest.importorskip("datasketch")
    originals = [document(seed) for seed in range(40)]
    copies = [with_one_sentence_changed(text, seed) for seed, text in enumerate(originals)]
    # 5 % of the runs change: the overlap is about 0.9.
    assert reasons(originals + copies) == [None] * 40 + [NEAR_DUPLICATE] * 40


@pytest.mark.slow
def test_case_and_punctuation_do_not_tell_near_copies_apart():
    pytest.importorskip("datasketch")
    text = document(1)
    shouted = text.upper().replace(".", " !").replace(" ", "  ")
    assert reasons([text, shouted], NEAR) == [None, NEAR_DUPLICATE]
    assert reasons([text, shouted], EXACT) == [None, None]


def test_an_exact_copy_is_called_exact_and_a_near_one_near():
    pytest.importorskip("datasketch")
    text = document(1)
    near = with_one_sentence_changed(text, 2)
    assert reasons([text, near, text]) == [None, NEAR_DUPLICATE, EXACT_DUPLICATE]
    assert reasons([text, text], NEAR) == [None, NEAR_DUPLICATE]


def test_different_texts_of_one_vocabulary_are_kept():
    pytest.importorskip("datasketch")
    assert reasons([document(seed) for seed in range(300)]) == [None] * 300


@pytest.mark.parametrize("text", ["", "!?", "a", "a b c", "🙂", "\ud800"])
def test_documents_of_few_words_have_keys_of_their_own(text):
    pytest.importorskip("datasketch")
    assert reasons([text, "mot", f"{text} autre mot"], NEAR) == [None, None, None]
    assert reasons([text, text], NEAR) == [None, NEAR_DUPLICATE]


def test_half_of_a_document_is_no_near_copy_of_it():
    pytest.importorskip("datasketch")
    pairs = [(document(seed), document(seed)[: 30 * 30]) for seed in range(60)]
    assert sum(reasons(pair, NEAR)[1] is not None for pair in pairs) <= 8  # 5 % expected


def test_similarity_decides_how_near_a_copy_is():
    pytest.importorskip("datasketch")
    # 9 sentences of 12 are shared: 105 runs of 177, an overlap of 0.6.
    originals = [document(seed, num_sentences=12) for seed in range(60)]
    copies = [
        ". ".join(text.split(". ")[:9]) + ". " + document(1000 + seed, num_sentences=3)
        for seed, text in enumerate(originals)
    ]

    def num_found(similarity):
        config = QualityConfig(drop_near_duplicates=True, near_duplicate_similarity=similarity)
        pairs = zip(originals, copies, strict=True)
        return sum(reasons(pair, config)[1] is not None for pair in pairs)

    assert num_found(0.5) >= 50
    assert num_found(0.8) <= 25
    assert num_found(0.95) <= 2


def test_only_what_was_kept_counts_as_an_earlier_document():
    keys = np.arange(3 * num_duplicate_keys(NEAR), dtype=np.uint64).reshape(3, -1)
    keys[1, 0], keys[2, 1] = keys[0, 0], keys[1, 1]
    assert Deduplicator(NEAR).reasons(keys) == [None, NEAR_DUPLICATE, None]


@pytest.mark.parametrize("group_size", [1, 2, 7, 100, 1000])
def test_decisions_do_not_depend_on_how_documents_are_grouped(group_size):
    generator = np.random.default_rng(0)
    texts = generator.integers(0, 5000, (700, num_duplicate_keys(BOTH)), dtype=np.uint64)
    texts[:, 0] += np.arange(5000, 5700, dtype=np.uint64) * 5000  # equal texts have equal keys
    keys = texts[generator.integers(0, 700, 1000)]
    expected, taken = [], set()
    for row in keys.tolist():
        shared = [key in taken for key in row]
        expected.append(
            None if not any(shared) else EXACT_DUPLICATE if shared[0] else NEAR_DUPLICATE
        )
        if not any(shared):
            taken.update(row)
    assert len(set(expected)) == 3
    deduplicator = Deduplicator(BOTH)
    groups = [keys[start : start + group_size] for start in range(0, 1000, group_size)]
    found = list(itertools.chain.from_iterable(map(deduplicator.reasons, groups)))
    assert found == expected


def test_a_restored_state_goes_on_as_if_it_had_never_stopped():
    generator = np.random.default_rng(1)
    keys = generator.integers(0, 3000, (600, num_duplicate_keys(BOTH)), dtype=np.uint64)
    whole = Deduplicator(BOTH).reasons(keys)
    is_kept = np.equal(whole, None)
    for restore in ("add", "reasons"):
        restored = Deduplicator(BOTH)
        getattr(restored, restore)(keys[:300][is_kept[:300]])
        assert restored.reasons(keys[300:]) == whole[300:]


def test_the_state_takes_eight_bytes_a_key():
    deduplicator = Deduplicator(BOTH)
    generator = np.random.default_rng(2)
    for _ in range(20):
        keys = generator.integers(0, 1 << 64, (500, num_duplicate_keys(BOTH)), dtype=np.uint64)
        assert deduplicator.reasons(keys) == [None] * 500
    assert sum(run.nbytes for run in deduplicator._runs) == 20 * 500 * num_duplicate_keys(BOTH) * 8


@pytest.mark.parametrize(
    "keys", [np.zeros((2, 3), dtype=np.uint64), np.zeros((2, 1)), np.zeros(1, dtype=np.uint64)]
)
def test_keys_of_other_settings_are_refused(keys):
    with pytest.raises(ValueError, match=r"they must be uint64 \(N, 1\)"):
        Deduplicator(EXACT).reasons(keys)


@pytest.mark.slow
def test_keys_are_the_same_in_another_process():
    pytest.importorskip("datasketch")
    code = (
        "from dimgpt.config import QualityConfig;"
        "from dimgpt.data.preparing.quality import duplicate_keys;"
        "config = QualityConfig(drop_exact_duplicates=True, drop_near_duplicates=True);"
        "print(duplicate_keys('Un chat dort. Un chien mange une pomme.', config).tolist())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "77"},
    )
    keys = duplicate_keys("Un chat dort. Un chien mange une pomme.", BOTH)
    assert json.loads(run.stdout) == keys.tolist()
    # Stored keys must stay what they are, whatever the version of the library.
    assert keys[:2].tolist() == [8473454954832989166, 17753240623405091628]


@pytest.mark.slow
def test_a_huge_document_takes_little_time_and_memory():
    pytest.importorskip("datasketch")
    text = document(3, num_sentences=1000) * 100
    assert len(text) > 5_000_000
    assert duplicate_keys(text, BOTH).shape == (num_duplicate_keys(BOTH),)


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    for cached in ("_empty_sketch", "_language_identifier"):
        monkeypatch.setattr(quality, cached, getattr(quality, cached).__wrapped__)
    config = QualityConfig(drop_near_duplicates=True, languages=("de",))
    with pytest.raises(ImportError, match="pip install datasketch"):
        duplicate_keys("a", config)
    with pytest.raises(ImportError, match="pip install py3langid"):
        reason_to_drop("a", config)


@pytest.mark.slow
@pytest.mark.skipif(not FRENCH.is_dir(), reason="the sample of French text is not beside the code")
def test_of_real_french_hardly_anything_is_called_foreign_or_a_copy():
    pytest.importorskip("datasketch")
    pytest.importorskip("py3langid")
    texts = []
    for name in ("books", "institutions", "wiki_news"):
        with gzip.open(FRENCH / f"{name}.jsonl.gz") as file:
            texts += [json.loads(line)["text"] for line in itertools.islice(file, 0, 1200, 10)]
    found = reasons([text[:6000] for text in texts])
    assert sum(reason is not None for reason in found) <= 2
    french = QualityConfig(languages=("fr",))
    assert sum(reason_to_drop(text, french) is not None for text in texts) <= 2


def test_stories_of_the_demo_are_not_taken_for_copies_of_each_other():
    pytest.importorskip("datasketch")
    found = reasons(list(stories(300, seed=0)))
    assert sum(reason is not None for reason in found) <= 6

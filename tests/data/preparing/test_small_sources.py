"""Sources with few documents, or with documents that begin alike, as a new user has them."""

import json
import random
import shutil

import numpy as np
import pytest

from dimgpt.config import ConversationSourceConfig, DataConfig, SourceConfig
from dimgpt.data.preparing.finishing import read_report
from dimgpt.data.preparing.plan import Share
from dimgpt.data.preparing.preparation import (
    merge,
    plan_preparation,
    prepare_source,
    run_share,
)
from dimgpt.data.preparing.splits import Borders, find_openings, split_key
from dimgpt.data.token_file import TokenFile, read_manifest
from dimgpt.text.byte_level import train_byte_level

CONFIG = DataConfig(validation_ratio=0.1, num_workers=1)
WORDS = "chat chien cour jardin arbre mange dort court voit petit grand rouge bleu".split()


def sentences(seed, count=40):
    generator = random.Random(seed)
    return "\n".join(" ".join(generator.choices(WORDS, k=9)) + "." for _ in range(count))


def text_source(folder, texts):
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:03}.txt").write_text(text)
    return SourceConfig(name="mine", path=str(folder))


def conversation_source(path, turns):
    path.write_text("".join(json.dumps({"conversation": turn}) + "\n" for turn in turns))
    return ConversationSourceConfig(name="talk", path=str(path))


def prepare(source, tokenizer, tmp_path, config=CONFIG):
    return prepare_source(source, tokenizer, tmp_path / "out", config=config)


def counts(folder):
    return {name: file.num_documents for name, file in read_manifest(folder).files.items()}


def text_of(folder, split, tokenizer, index=0):
    file = TokenFile(folder, split, fingerprint=tokenizer.fingerprint)
    return tokenizer.decode(file.document(index)[1:-1])


LICENCE = "Licence. " + sentences("licence", 20) + "\n\n"


def test_thirty_texts_behind_one_licence_are_split(tokenizer, tmp_path):
    texts = [LICENCE + sentences(number) for number in range(30)]
    folder = prepare(text_source(tmp_path / "texts", texts), tokenizer, tmp_path)
    assert 1 <= counts(folder)["validation"] <= 8
    assert read_report(folder).notes == []


def test_near_copies_behind_one_licence_are_on_one_side(tokenizer, tmp_path):
    texts = [LICENCE + sentences(number) + f" Version {k}." for number in range(30) for k in (1, 2)]
    folder = prepare(text_source(tmp_path / "texts", texts), tokenizer, tmp_path)
    file = TokenFile(folder, "validation", fingerprint=tokenizer.fingerprint)
    held_out = [tokenizer.decode(file.document(n)[1:-1]) for n in range(file.num_documents)]
    assert held_out
    assert len(held_out) == 2 * len({text.partition(" Version")[0] for text in held_out})


def talk(number, prompt, *, is_system):
    question = f"Question {number}: {sentences(1_000 + number, 2)}"
    opening = [{"role": "system", "text": prompt}] if is_system else []
    question = question if is_system else f"{prompt}\n\n{question}"
    answer = {"role": "assistant", "text": sentences(2_000 + number, 1)}
    return [*opening, {"role": "user", "text": question}, answer]


@pytest.mark.parametrize("is_system", [True, False])
@pytest.mark.parametrize("num_prompts", [1, 2, 5])
def test_conversations_under_few_long_prompts_are_split_as_asked(
    tokenizer, tmp_path, num_prompts, is_system
):
    prompts = [f"Tu es aimable. {sentences(number, 10)}" for number in range(num_prompts)]
    turns = [
        talk(number, prompts[number % num_prompts], is_system=is_system) for number in range(100)
    ]
    folder = prepare(conversation_source(tmp_path / "talk.jsonl", turns), tokenizer, tmp_path)
    assert 4 <= counts(folder)["validation"] <= 20
    assert read_report(folder).notes == ["read as DimensionGPT"]


@pytest.mark.slow
@pytest.mark.parametrize("num_prompts", [1, 2, 5])
@pytest.mark.parametrize("num_letters", [50, 120, 300])
def test_the_share_held_out_is_near_the_one_asked_for(num_prompts, num_letters):
    prompts = [sentences(f"prompt {n}", 100)[: num_letters * 6 // 5] for n in range(num_prompts)]
    texts = [f"{prompts[n % num_prompts]} {sentences(n, 2)}" for n in range(2_000)]
    openings = find_openings(texts[:500])
    keys = np.array([split_key(text, seed=0, openings=openings) for text in texts], np.uint64)
    for ratio in (0.01, 0.03, 0.1):
        borders = Borders.of(validation_ratio=ratio, test_ratio=0.0)
        share = borders.choose(keys)["validation"].mean()
        assert share == pytest.approx(ratio, abs=4 * (ratio / 2_000) ** 0.5)


def test_short_conversations_under_many_system_prompts_are_split_as_asked(tokenizer, tmp_path):
    turns = [
        [
            {"role": "system", "text": sentences(number % 30, 10)},
            {"role": "user", "text": f"Question {number}"},
            {"role": "assistant", "text": f"Oui {number}"},
        ]
        for number in range(200)
    ]
    folder = prepare(conversation_source(tmp_path / "talk.jsonl", turns), tokenizer, tmp_path)
    assert 10 <= counts(folder)["validation"] <= 35


@pytest.mark.slow
def test_shares_on_several_disks_find_the_same_openings(tokenizer, tmp_path):
    sizes = {"block_bytes": 20_000, "part_blocks": 2}
    texts = [LICENCE + sentences(number) for number in range(60)]
    source = text_source(tmp_path / "texts", texts)
    whole = prepare_source(source, tokenizer, tmp_path / "whole", config=CONFIG, **sizes)
    for index in (1, 2):
        disk = tmp_path / f"disk-{index}"
        plan = plan_preparation(source, tokenizer, disk, config=CONFIG, **sizes)
        run_share(plan, Share(index=index, count=2))
        shutil.copytree(disk, tmp_path / "out", dirs_exist_ok=True)
    merge(plan_preparation(source, tokenizer, tmp_path / "out", config=CONFIG, **sizes))
    assert 1 <= counts(whole)["validation"] <= 14
    for path in whole.iterdir():
        assert (tmp_path / "out" / "mine" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_first_part_of_a_large_source_fills_every_split(tokenizer, tmp_path, ratio):
    source = text_source(tmp_path / "texts", [sentences(number) for number in range(60)])
    config = DataConfig(validation_ratio=ratio, num_workers=1)
    folder = prepare_source(
        source, tokenizer, tmp_path / "out", config=config, block_bytes=10_000, part_blocks=2
    )
    assert sorted(counts(folder).values()) == [1, 59]
    assert sum(len(file.parts) for file in read_manifest(folder).files.values()) > 3


def test_a_share_that_came_out_far_from_the_one_asked_for_is_said(tokenizer, tmp_path, caplog):
    texts = [sentences(number % 3, 8) + f" {number}" for number in range(90)]
    config = DataConfig(validation_ratio=0.01, num_workers=1)
    folder = prepare(text_source(tmp_path / "texts", texts), tokenizer, tmp_path, config)
    assert counts(folder)["validation"] == 30
    note = "30 of 90 documents are in validation instead of about 1"
    assert note in read_report(folder).notes[0]
    assert f"mine: {note}" in caplog.text


@pytest.mark.parametrize("kind", ["txt", "jsonl", "two copies"])
def test_one_book_is_split_at_a_line_end_near_its_end(tokenizer, tmp_path, caplog, kind):
    book = sentences("book", 2_380)
    assert 120_000 < len(book) < 130_000
    if kind == "jsonl":
        path = tmp_path / "book.jsonl"
        path.write_text(json.dumps({"text": book}) + "\n")
        source = SourceConfig(name="mine", path=str(path))
    else:
        texts = [book] if kind == "txt" else [book + " Fin", book]
        source = text_source(tmp_path / "texts", texts)
    config = DataConfig(validation_ratio=0.001, num_workers=1)
    folder = prepare(source, tokenizer, tmp_path, config)
    assert counts(folder) == {"train": 1 + (kind == "two copies"), "validation": 1}
    held_out = text_of(folder, "validation", tokenizer)
    assert 1_000 <= len(held_out) <= 2_000
    index = counts(folder)["train"] - 1
    whole = text_of(folder, "train", tokenizer, index).rstrip("\n") + "\n" + held_out
    assert whole.removesuffix(" Fin") == book
    note = f"every split: the last {len(held_out):,} of"
    assert note in read_report(folder).notes[0]
    assert note in caplog.text


def test_one_book_is_split_whatever_the_vocabulary(tmp_path):
    book = sentences("book", 200)
    tokenizer = train_byte_level([book], 300, special_tokens=("<|endoftext|>",))
    folder = prepare(text_source(tmp_path / "texts", [book]), tokenizer, tmp_path)
    file = {
        split: TokenFile(folder, split, fingerprint=tokenizer.fingerprint)
        for split in ("train", "validation")
    }
    rest, held_out = (tokenizer.decode(one.document(0)[:-1]) for one in file.values())
    assert rest.rstrip("\n") + "\n" + held_out == book


def test_one_book_fills_a_test_split_as_well(tokenizer, tmp_path):
    config = DataConfig(validation_ratio=0.05, test_ratio=0.05, num_workers=1)
    source = text_source(tmp_path / "texts", [sentences("book", 1_000), sentences("short", 3)])
    folder = prepare(source, tokenizer, tmp_path, config)
    assert counts(folder) == {"test": 1, "train": 2, "validation": 1}


def test_fifty_characters_are_refused_with_the_cause(tokenizer, tmp_path):
    source = text_source(
        tmp_path / "texts", ["le chat dort dans la cour et le chien mange dehors", "a"]
    )
    config = DataConfig(min_document_characters=4, num_workers=1)
    with pytest.raises(ValueError, match="mine is too small to split") as caught:
        prepare(source, tokenizer, tmp_path, config)
    message = str(caught.value)
    assert "2 documents were read and 1 kept (dropped: too short 1)" in message
    assert "1 of them different" in message
    assert "the longest has 50 characters" in message
    assert "\n" not in message
    assert not (tmp_path / "out" / "mine.unfinished").exists()


def test_a_lone_conversation_is_refused_with_the_cause(tokenizer, tmp_path):
    turns = [[{"role": "user", "text": sentences(1)}, {"role": "assistant", "text": "Oui"}]] * 3
    source = conversation_source(tmp_path / "talk.jsonl", turns)
    with pytest.raises(ValueError, match="3 conversations were read and 3 kept.*1 of them differ"):
        prepare(source, tokenizer, tmp_path)

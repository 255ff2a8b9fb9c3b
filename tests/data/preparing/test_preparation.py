import dataclasses
import json

import pytest

from dimgpt import workers
from dimgpt.config import ConversationSourceConfig, DataConfig, SourceConfig
from dimgpt.data.preparing import preparation
from dimgpt.data.preparing.preparation import prepare_source
from dimgpt.data.token_file import TokenFile, read_manifest

SMALL = {"block_bytes": 200, "part_blocks": 4}
CONFIG = DataConfig(min_document_characters=4, validation_ratio=0.2, num_workers=1)


def write_source(path, documents, **settings):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return SourceConfig(name=path.stem, path=str(path), **settings)


@pytest.fixture
def source(tmp_path):
    documents = [f"chat {number} dans la cour" for number in range(100)] + ["non"]
    return write_source(tmp_path / "cats.jsonl", documents)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def texts(folder, split, tokenizer):
    file = TokenFile(folder, split, fingerprint=tokenizer.fingerprint)
    return [tokenizer.decode(file.document(i)[1:-1]) for i in range(file.num_documents)]


def test_every_document_is_in_exactly_one_split(source, tokenizer, tmp_path):
    folder = prepare_source(source, tokenizer, tmp_path / "out", config=CONFIG)
    assert folder == tmp_path / "out" / "cats"
    train, validation = (texts(folder, split, tokenizer) for split in ("train", "validation"))
    assert sorted(train + validation) == sorted(f"chat {n} dans la cour" for n in range(100))
    assert 5 <= len(validation) <= 40
    manifest = read_manifest(folder)
    assert sum(manifest.dropped.values()) == 1
    assert manifest.files["train"].num_characters == sum(map(len, train))


def test_the_splits_share_out_all_raw_bytes_also_of_one_document_that_is_cut(tokenizer, tmp_path):
    many = [f"« chat » n° {number} dans la cour" for number in range(100)]
    for name, documents in {"many": many, "one": ["« chat » dans la cour. " * 500]}.items():
        source = write_source(tmp_path / f"{name}.jsonl", documents)
        folder = prepare_source(source, tokenizer, tmp_path / "out", config=CONFIG)
        files = read_manifest(folder).files
        assert set(files) == {"train", "validation"}
        raw = [file.num_raw_bytes for file in files.values()]
        assert sum(raw) == pytest.approx(len("".join(documents).encode()), abs=1)
        assert all(n > file.num_bytes for n, file in zip(raw, files.values(), strict=True))


def test_preparing_again_gives_identical_files(source, tokenizer, tmp_path):
    first, second = (
        contents(prepare_source(source, tokenizer, tmp_path / name, config=CONFIG))
        for name in ("a", "b")
    )
    assert first == second


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(source, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "MAX_VALUES_WITHOUT_PROCESSES", 1)
    first, second = (
        contents(
            prepare_source(
                source,
                tokenizer,
                tmp_path / str(count),
                config=dataclasses.replace(CONFIG, num_workers=count),
                **SMALL,
            )
        )
        for count in (1, 2)
    )
    assert first == second


def test_a_finished_folder_is_kept(source, tokenizer, tmp_path, monkeypatch):
    folder = prepare_source(source, tokenizer, tmp_path, config=CONFIG)
    before = (folder / "train-00000-00000.bin").stat().st_mtime_ns
    monkeypatch.setattr(preparation, "run_share", None)
    other_multiplier = dataclasses.replace(source, multiplier=3.0, group="pets")
    other_vocabulary_size = dataclasses.replace(CONFIG, vocabulary_characters=5)
    prepare_source(other_multiplier, tokenizer, tmp_path, config=other_vocabulary_size)
    assert (folder / "train-00000-00000.bin").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"validation_ratio": 0.5}, {"min_document_characters": 20}]
)
def test_other_settings_prepare_again(source, tokenizer, tmp_path, change):
    before = contents(prepare_source(source, tokenizer, tmp_path, config=CONFIG))
    config = dataclasses.replace(CONFIG, **change)
    assert contents(prepare_source(source, tokenizer, tmp_path, config=config)) != before


def test_a_rule_of_cleaning_prepares_again(source, tokenizer, tmp_path):
    plain = prepare_source(source, tokenizer, tmp_path, config=CONFIG)
    before = read_manifest(plain).source["settings"]
    cleaned = dataclasses.replace(source, cleaning="detokenize")
    after = read_manifest(prepare_source(cleaned, tokenizer, tmp_path, config=CONFIG)).source
    assert after["settings"] == before | {"cleaning": "detokenize"}


def test_a_folder_of_a_version_without_the_newer_fields_is_kept(source, tokenizer, tmp_path):
    folder = prepare_source(source, tokenizer, tmp_path, config=CONFIG)
    # What the manifests of 2026-11-25 hold.
    names = {"name", "path", "text_column", "text_template", "hub_config", "hub_split"}
    names |= {"revision", "max_bytes", "min_characters", "compose_accents", "seed", "quality"}
    names |= {"validation_ratio", "test_ratio", "bad_records", "first_items_sha256"}
    assert set(read_manifest(folder).source["settings"]) == names


def test_another_vocabulary_or_a_grown_file_prepares_again(source, tokenizer, tmp_path):
    folder = prepare_source(source, tokenizer, tmp_path, config=CONFIG)
    other = type(tokenizer)([*tokenizer.tokens, "cour"])
    prepare_source(source, other, tmp_path, config=CONFIG)
    assert read_manifest(folder).vocabulary_sha256 == other.fingerprint
    write_source(tmp_path / "cats.jsonl", [f"chien {number} dans la cour" for number in range(9)])
    prepare_source(source, other, tmp_path, config=CONFIG)
    counts = [summary.num_documents for summary in read_manifest(folder).files.values()]
    assert sum(counts) == 9


def test_another_generator_of_the_demo_prepares_again(tokenizer, tmp_path, monkeypatch):
    source = SourceConfig(name="stories", path="demo://stories/20")
    first = contents(prepare_source(source, tokenizer, tmp_path, config=CONFIG))
    same = contents(prepare_source(source, tokenizer, tmp_path, config=CONFIG))
    monkeypatch.setattr(
        "dimgpt.demo.corpus.stories",
        lambda num_documents, *, seed: (f"chat {number} ici" for number in range(num_documents)),
    )
    other = contents(prepare_source(source, tokenizer, tmp_path, config=CONFIG))
    assert first == same
    assert other["train-00000-00000.bin"] != first["train-00000-00000.bin"]


@pytest.mark.parametrize("damage", [b"", b"zero", None])
def test_a_damaged_folder_is_prepared_again(source, tokenizer, tmp_path, damage):
    folder = prepare_source(source, tokenizer, tmp_path, config=CONFIG)
    before = contents(folder)
    if damage is None:
        (folder / "manifest.json").unlink()
    else:
        (folder / "train-00000-00000.bin").write_bytes(damage)
    prepare_source(source, tokenizer, tmp_path, config=CONFIG)
    assert contents(folder) == before


def test_a_failure_half_way_leaves_the_old_folder_and_what_is_finished(source, tokenizer, tmp_path):
    folder = prepare_source(source, tokenizer, tmp_path / "out", config=CONFIG)
    before = contents(folder)

    def stop(progress):
        if progress.num_documents > 50:
            raise KeyboardInterrupt

    config = dataclasses.replace(CONFIG, seed=1)
    with pytest.raises(KeyboardInterrupt):
        prepare_source(source, tokenizer, tmp_path / "out", config=config, progress=stop, **SMALL)
    assert contents(folder) == before
    unfinished = tmp_path / "out" / "cats.unfinished"
    assert sorted((tmp_path / "out").iterdir()) == [folder, unfinished]
    assert (unfinished / "part-00000-00000.json").exists()
    assert not list(unfinished.glob("*.partial"))


def test_a_source_that_breaks_off_gives_no_folder(source, tokenizer, tmp_path):
    with (tmp_path / "cats.jsonl").open("a") as file:
        file.write('{"text": ')
    with pytest.raises(ValueError, match="line 102 is not JSON"):
        prepare_source(source, tokenizer, tmp_path / "out", config=CONFIG)
    assert not (tmp_path / "out" / "cats").exists()


@pytest.mark.parametrize("ratio", [0.0, 1e-6, 1.0])
def test_no_split_stays_empty(source, tokenizer, tmp_path, ratio):
    config = dataclasses.replace(CONFIG, validation_ratio=ratio)
    folder = prepare_source(source, tokenizer, tmp_path, config=config)
    sizes = [summary.num_documents for summary in read_manifest(folder).files.values()]
    assert sorted(sizes) == [1, 99]


def test_near_copies_are_on_one_side(tokenizer, tmp_path):
    beginnings = [f"Histoire {number} : " + "le chat dort. " * 12 for number in range(30)]
    copies = [text + f"Version {n}." for text in beginnings for n in range(3)]
    source = write_source(tmp_path / "copies.jsonl", copies)
    folder = prepare_source(source, tokenizer, tmp_path, config=CONFIG)
    validation = texts(folder, "validation", tokenizer)
    assert validation
    assert len(validation) == 3 * len({text.partition(" le")[0] for text in validation})


@pytest.mark.parametrize("documents", [["un chat"], ["un chat", "Un chat!"]])
def test_too_little_to_split_is_refused(tokenizer, tmp_path, documents):
    source = write_source(tmp_path / "few.jsonl", documents)
    with pytest.raises(ValueError, match="few is too small to split"):
        prepare_source(source, tokenizer, tmp_path, config=CONFIG)


def test_where_everything_was_dropped_the_reasons_are_said(tokenizer, tmp_path):
    source = write_source(tmp_path / "few.jsonl", ["a", "b"])
    with pytest.raises(ValueError, match=r"few.jsonl were dropped .*too short 2"):
        prepare_source(source, tokenizer, tmp_path, config=CONFIG)


def conversations(path):
    turns = [{"user": f"question {n}", "assistant": "oui"} for n in range(100)]
    path.write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    return ConversationSourceConfig(name="chat", path=str(path))


@pytest.mark.slow
def test_a_group_may_hold_out_another_share_or_nothing(tokenizer, tmp_path):
    group, held_out = conversations(tmp_path / "chat.jsonl"), {}
    for ratio in (None, 0.6, 0.0):
        own = dataclasses.replace(group, validation_ratio=ratio)
        folder = prepare_source(own, tokenizer, tmp_path, config=CONFIG)
        files = read_manifest(folder).files
        held_out[ratio] = {name: summary.num_documents for name, summary in files.items()}
        assert sum(held_out[ratio].values()) == 100
    assert held_out[None]["validation"] == pytest.approx(20, abs=16)  # 4 sigma
    assert held_out[0.6]["validation"] == pytest.approx(60, abs=20)
    assert held_out[0.0] == {"train": 100}


def test_a_group_prepared_before_it_had_such_settings_is_kept(tokenizer, tmp_path):
    group = conversations(tmp_path / "chat.jsonl")
    folder = prepare_source(group, tokenizer, tmp_path, config=CONFIG)
    settings = read_manifest(folder).source["settings"]
    assert settings["validation_ratio"] == CONFIG.validation_ratio
    assert not {"validation_system_prompt", "form"} & settings.keys()
    before = (folder / "train-00000-00000.bin").stat().st_mtime_ns
    prompted = dataclasses.replace(group, validation_system_prompt="un chat")
    prepare_source(prompted, tokenizer, tmp_path, config=CONFIG)
    assert (folder / "train-00000-00000.bin").stat().st_mtime_ns == before


def test_conversations_and_system_prompts_are_stored_bare(tokenizer, tmp_path):
    turns = [
        {"conversation": [{"role": "user", "text": f"q {n}"}, {"role": "assistant", "text": "r"}]}
        for n in range(20)
    ]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"preprompt": "un chat"}) + "\n")
    source = ConversationSourceConfig(
        name="chat",
        path=str(tmp_path / "chat.jsonl"),
        system_prompts_path=str(tmp_path / "prompts.jsonl"),
    )
    folder = prepare_source(source, tokenizer, tmp_path / "out", config=CONFIG)
    files = {
        name: TokenFile(folder, name, fingerprint=tokenizer.fingerprint)
        for name in ("train", "validation", "system_prompts")
    }
    assert files["train"].num_documents + files["validation"].num_documents == 20
    first = files["train"].document(0).tolist()
    assert [id for id in first if id < 10] == [7, 8]
    prompts = files["system_prompts"]
    assert prompts.document(0).tolist() == [6, *tokenizer.encode("un chat")]

    before = (folder / "train-00000-00000.bin").stat().st_mtime_ns
    other = dataclasses.replace(source, ratio=0.5, system_prompt_ratios={"chat": 1.0})
    prepare_source(other, tokenizer, tmp_path / "out", config=CONFIG)
    assert (folder / "train-00000-00000.bin").stat().st_mtime_ns == before


def test_system_prompts_are_written_where_the_first_file_holds_no_record(tokenizer, tmp_path):
    folder = tmp_path / "talk"
    folder.mkdir()
    (folder / "0.jsonl").write_text("\n" * 2_000)  # a shard of its own
    turns = [{"user": f"q {n}", "assistant": "le chat"} for n in range(40)]
    (folder / "1.jsonl").write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"preprompt": "un chat"}) + "\n")
    source = ConversationSourceConfig(
        name="talk", path=str(folder), system_prompts_path=str(tmp_path / "prompts.jsonl")
    )
    files = read_manifest(
        prepare_source(source, tokenizer, tmp_path / "out", config=CONFIG, **SMALL)
    ).files
    assert files["system_prompts"].num_documents == 1
    assert files["train"].num_documents + files["validation"].num_documents == 40

import json
import multiprocessing
import os
import shutil
from collections import Counter

import pytest

from dimgpt.cli import main
from dimgpt.config import ConversationSourceConfig, DataConfig, QualityConfig, SourceConfig
from dimgpt.data.preparing.plan import Plan, Share
from dimgpt.data.preparing.preparation import merge, plan_preparation, prepare_source, run_share
from dimgpt.data.token_file import TokenFile

pytestmark = pytest.mark.slow

SIZES = {"block_bytes": 400, "part_blocks": 4}
CONFIG = DataConfig(min_document_characters=4, validation_ratio=0.1, num_workers=1)


def write_lines(path, texts):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(params=[1, 6])
def source(tmp_path, request):
    """One file, cut into blocks, or six, each a shard."""
    for name in range(request.param):
        texts = [f"chat {n} dort dans la cour {name}" for n in range(240 // request.param)]
        write_lines(tmp_path / "texts" / f"{name}.jsonl", texts)
    return SourceConfig(name="cats", path=str(tmp_path / "texts"))


def plan(source, tokenizer, folder, *, config=CONFIG):
    return plan_preparation(source, tokenizer, folder, config=config, **SIZES)


def documents(folder, tokenizer):
    found = {}
    for name in ("train", "validation"):
        file = TokenFile(folder, name, fingerprint=tokenizer.fingerprint)
        found[name] = Counter(file.document(n).tobytes() for n in range(file.num_documents))
    return found


def write_shares(source, tokenizer, folder, indexes=(1, 2, 3, 4), *, config=CONFIG):
    for index in indexes:
        job = plan(source, tokenizer, folder, config=config)
        run_share(job, Share(index=index, count=4))


def test_four_shares_hold_the_documents_of_one_run(source, tokenizer, tmp_path):
    whole = prepare_source(source, tokenizer, tmp_path / "one", config=CONFIG, **SIZES)
    sizes = [0]
    for index in (1, 2, 3, 4):
        write_shares(source, tokenizer, tmp_path / "four", (index,))
        sizes.append(sum(path.stat().st_size for path in (tmp_path / "four").rglob("*.bin")))
    assert sizes == sorted(set(sizes))
    merge(plan(source, tokenizer, tmp_path / "four"))
    assert documents(tmp_path / "four" / "cats", tokenizer) == documents(whole, tokenizer)
    assert [path.name for path in (tmp_path / "four").iterdir()] == ["cats"]
    assert plan(source, tokenizer, tmp_path / "four") is None


def test_finished_shares_read_nothing_again(source, tokenizer, tmp_path, monkeypatch):
    write_shares(source, tokenizer, tmp_path)
    monkeypatch.setattr(Plan, "read", None)
    write_shares(source, tokenizer, tmp_path)
    merge(plan(source, tokenizer, tmp_path))


def test_a_share_that_another_process_writes_is_refused_and_the_others_are_not(
    source, tokenizer, tmp_path, holding
):
    with holding(tmp_path / "cats.unfinished" / "share-2-of-4.lock"):
        with pytest.raises(RuntimeError, match="another run writes share 2 of 4 of cats"):
            write_shares(source, tokenizer, tmp_path, (2,))
        write_shares(source, tokenizer, tmp_path, (1, 3, 4))
    write_shares(source, tokenizer, tmp_path, (2,))
    merge(plan(source, tokenizer, tmp_path))


def test_merging_copies_no_token(source, tokenizer, tmp_path):
    write_shares(source, tokenizer, tmp_path / "out")
    before = {path.stat().st_ino for path in (tmp_path / "out").rglob("*.bin")}
    merge(plan(source, tokenizer, tmp_path / "out"))
    assert {path.stat().st_ino for path in (tmp_path / "out").rglob("*.bin")} == before


def test_a_small_source_is_one_runs_alone_and_keeps_its_splits(tokenizer, tmp_path):
    write_lines(tmp_path / "few.jsonl", ["un chat", "le chien"])
    source = SourceConfig(name="few", path=str(tmp_path / "few.jsonl"))
    whole = prepare_source(source, tokenizer, tmp_path / "one", config=CONFIG, **SIZES)
    write_shares(source, tokenizer, tmp_path / "four")
    assert len(list((tmp_path / "four").rglob("train-*.bin"))) == 1
    merge(plan(source, tokenizer, tmp_path / "four"))
    assert documents(tmp_path / "four" / "few", tokenizer) == documents(whole, tokenizer)


def test_conversations_are_shared_with_their_system_prompts(tokenizer, tmp_path):
    turns = [{"user": f"q {n}", "assistant": "le chat"} for n in range(200)]
    path, prompts = tmp_path / "talk.jsonl", tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    prompts.write_text(json.dumps({"preprompt": "un chat"}) + "\n")
    source = ConversationSourceConfig(name="talk", path=str(path), system_prompts_path=str(prompts))
    whole = prepare_source(source, tokenizer, tmp_path / "one", config=CONFIG, **SIZES)
    write_shares(source, tokenizer, tmp_path / "four")
    merge(plan(source, tokenizer, tmp_path / "four"))
    merged = tmp_path / "four" / "talk"
    assert documents(merged, tokenizer) == documents(whole, tokenizer)
    file = TokenFile(merged, "system_prompts", fingerprint=tokenizer.fingerprint)
    assert file.num_documents == 1


def test_a_missing_or_unfinished_share_is_named(source, tokenizer, tmp_path):
    write_shares(source, tokenizer, tmp_path, (1, 2))
    before = set((tmp_path / "cats.unfinished").glob("part-*.json"))
    write_shares(source, tokenizer, tmp_path, (4,))
    of_fourth = set((tmp_path / "cats.unfinished").glob("part-*.json")) - before
    with pytest.raises(FileNotFoundError, match=r"share 3 of 4 of cats is missing.*--shard 3/4"):
        merge(plan(source, tokenizer, tmp_path))
    write_shares(source, tokenizer, tmp_path, (3,))
    of_fourth.pop().unlink()
    with pytest.raises(FileNotFoundError, match="share 4 of 4 of cats is unfinished"):
        merge(plan(source, tokenizer, tmp_path))
    write_shares(source, tokenizer, tmp_path, (4,))
    merge(plan(source, tokenizer, tmp_path))


def test_shares_of_other_settings_or_another_vocabulary_are_refused(source, tokenizer, tmp_path):
    write_shares(source, tokenizer, tmp_path, (1, 2, 3))
    other = DataConfig(min_document_characters=4, validation_ratio=0.1, num_workers=1, seed=1)
    with pytest.raises(ValueError, match=r"unfinished has another plan \(seed is 0, not 1\)"):
        write_shares(source, tokenizer, tmp_path, (4,), config=other)
    larger = type(tokenizer)([*tokenizer.tokens, "cour"])
    with pytest.raises(ValueError, match="unfinished has another plan .vocabulary_sha256"):
        write_shares(source, larger, tmp_path, (4,))
    with pytest.raises(ValueError, match=r"unfinished has another plan \(seed is 0, not 1\)"):
        merge(plan(source, tokenizer, tmp_path, config=other))
    write_shares(source, tokenizer, tmp_path, (4,))
    merge(plan(source, tokenizer, tmp_path))


def copy_together(folder, *others):
    for other in others:
        shutil.copytree(other / "cats.unfinished", folder / "cats.unfinished", dirs_exist_ok=True)


def test_shares_on_several_disks_are_copied_together(source, tokenizer, tmp_path):
    whole = prepare_source(source, tokenizer, tmp_path / "one", config=CONFIG, **SIZES)
    disks = [tmp_path / f"disk-{index}" for index in (1, 2, 3, 4)]
    for index, disk in enumerate(disks, start=1):
        write_shares(source, tokenizer, disk, (index,))
    copy_together(tmp_path, *disks)
    merge(plan(source, tokenizer, tmp_path))
    for path in whole.iterdir():
        assert (tmp_path / "cats" / path.name).read_bytes() == path.read_bytes()


def test_shares_leave_what_others_have_begun_and_merging_deletes_it(source, tokenizer, tmp_path):
    begun = tmp_path / "cats.unfinished" / "train-00000-00001.bin.partial"
    begun.parent.mkdir()
    begun.write_bytes(b"12")
    write_shares(source, tokenizer, tmp_path, (1,))
    assert begun.read_bytes() == b"12"
    write_shares(source, tokenizer, tmp_path, (2, 3, 4))
    merge(plan(source, tokenizer, tmp_path))
    assert not list(tmp_path.rglob("*.partial"))


def test_a_share_of_other_settings_that_is_copied_in_is_refused(source, tokenizer, tmp_path):
    other = DataConfig(min_document_characters=4, validation_ratio=0.1, num_workers=1, seed=1)
    write_shares(source, tokenizer, tmp_path / "disk-4", (4,), config=other)
    write_shares(source, tokenizer, tmp_path / "disk-1", (1, 2, 3))
    copy_together(tmp_path, tmp_path / "disk-4", tmp_path / "disk-1")
    with pytest.raises(FileNotFoundError, match=r"share 4 of 4 of cats .*of the same settings"):
        merge(plan(source, tokenizer, tmp_path))
    write_shares(source, tokenizer, tmp_path, (4,))
    merge(plan(source, tokenizer, tmp_path))


def test_shares_of_different_counts_make_one_whole(source, tokenizer, tmp_path):
    whole = prepare_source(source, tokenizer, tmp_path / "one", config=CONFIG, **SIZES)
    run_share(plan(source, tokenizer, tmp_path), Share(index=1, count=2))
    write_shares(source, tokenizer, tmp_path, (2, 4))
    merge(plan(source, tokenizer, tmp_path))
    assert documents(tmp_path / "cats", tokenizer) == documents(whole, tokenizer)


def test_while_a_share_is_written_runs_that_may_write_the_same_parts_are_refused(
    source, tokenizer, tmp_path, holding
):
    with holding(tmp_path / "cats.unfinished" / "share-2-of-4.lock"):
        with pytest.raises(RuntimeError, match="another run writes share 2 of 4 of cats"):
            run_share(plan(source, tokenizer, tmp_path), Share(index=1, count=2))
        with pytest.raises(RuntimeError, match="another run writes share 2 of 4 of cats"):
            prepare_source(source, tokenizer, tmp_path, config=CONFIG, **SIZES)
    prepare_source(source, tokenizer, tmp_path, config=CONFIG, **SIZES)


def test_what_an_older_version_has_begun_starts_again(source, tokenizer, tmp_path, caplog):
    whole = prepare_source(source, tokenizer, tmp_path / "one", config=CONFIG, **SIZES)
    for name in ("cats.unfinished", "cats.share-1-of-4"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "plan.json").write_text('{"plan": {}, "borders": {"validation": 1}}')
        (tmp_path / name / "part-00000.json").write_text('{"number": 0, "start": [0, 0]}')
        (tmp_path / name / "train-00000.bin").write_bytes(b"1234")
    write_shares(source, tokenizer, tmp_path)
    assert "cats was begun with other settings or texts, or by an older version" in caplog.text
    assert "cats.share-1-of-4 was made by an older version" in caplog.text
    merge(plan(source, tokenizer, tmp_path))
    assert {path.name for path in (tmp_path / "cats").iterdir()} == {
        path.name for path in whole.iterdir()
    }


def test_a_merge_that_broke_off_goes_on(source, tokenizer, tmp_path, monkeypatch):
    write_shares(source, tokenizer, tmp_path)
    monkeypatch.setattr("dimgpt.data.preparing.finishing.move_folder", None)
    with pytest.raises(TypeError):
        merge(plan(source, tokenizer, tmp_path))
    monkeypatch.undo()
    assert plan(source, tokenizer, tmp_path) is None
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("cats")] == ["cats"]


def test_without_shares_nothing_is_merged(source, tokenizer, tmp_path):
    with pytest.raises(FileNotFoundError, match="no shares to merge"):
        merge(plan(source, tokenizer, tmp_path / "out"))


def test_copies_are_looked_for_in_one_run_only(source, tokenizer, tmp_path):
    quality = QualityConfig(drop_exact_duplicates=True)
    config = DataConfig(min_document_characters=4, num_workers=1, quality=quality)
    with pytest.raises(ValueError, match="copies can only be dropped in a single run"):
        write_shares(source, tokenizer, tmp_path, (1,), config=config)


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1", "a/b", "-1/4", "1/0"])
def test_a_share_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="shard is"):
        Share.parse(text)


@pytest.mark.skipif(os.name == "nt", reason="forks")
def test_real_processes_write_shares_that_the_command_line_merges(tokenizer, tmp_path, capsys):
    for name in range(4):
        texts = [f"chat {n} dort dans la cour {name} " * 4 for n in range(40)]
        write_lines(tmp_path / "texts" / f"{name}.jsonl", texts)
    (tmp_path / "data" / "toy").mkdir(parents=True)
    tokenizer.save(tmp_path / "data" / "toy" / "vocab.txt")
    flags = ["--name", "toy", "--data-root", str(tmp_path / "data"), "--data.num-workers", "1"]
    flags += ["--sources", str(tmp_path / "texts"), "--conversations", str(tmp_path / "talk.jsonl")]
    flags += ["--data.vocab-size", str(tokenizer.vocab_size)]
    turns = [{"user": f"q {n}", "assistant": "le chat"} for n in range(30)]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(turn) + "\n" for turn in turns))

    with pytest.raises(SystemExit, match="no shares to merge"):
        main(["merge", *flags])
    fork = multiprocessing.get_context("fork")  # others would take seconds to load what this has
    words = [["prepare", "--shard", f"{index}/2", *flags] for index in (1, 2)]
    shares = [fork.Process(target=main, args=(one,)) for one in words]
    for share in shares:
        share.start()
    for share in shares:
        share.join()
    assert [share.exitcode for share in shares] == [0, 0]
    main(["merge", *flags])
    assert "texts" in capsys.readouterr().out

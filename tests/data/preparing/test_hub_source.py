"""A source on the hub, prepared from a real server on the loopback interface."""

import dataclasses
import functools
import shutil

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import Fault

from dimgpt.config import DataConfig, SourceConfig
from dimgpt.data.preparing import blocks, listing, plan
from dimgpt.data.preparing.items import read_documents
from dimgpt.data.preparing.preparation import prepare_source
from dimgpt.data.preparing.vocabulary_sample import sample_mixture
from dimgpt.data.token_file import TokenFile, read_manifest
from dimgpt.hub import Patience

QUICK = Patience(num_tries=2, first_delay=0.01, timeout=5)
CONFIG = DataConfig(min_document_characters=4, validation_ratio=0.1, num_workers=1)
SIZES = {"block_bytes": 1_000, "part_blocks": 3}
SOURCE = SourceConfig(name="wiki", path="hf://datasets/owner/wiki")
NUM_SHARDS = 4


@pytest.fixture
def hub(hub_server, tmp_path, monkeypatch):
    """A hub with a data set of four shards, which everything here asks."""
    hub_server.add("owner/wiki", dict(shards(tmp_path)), kind="dataset")
    options = {"endpoint": hub_server.endpoint, "patience": QUICK}
    list_shards = functools.partial(listing.list_shards, **options)
    monkeypatch.setattr(listing, "list_shards", list_shards)
    match_files = functools.partial(listing.match_files, **options)
    monkeypatch.setattr(listing, "match_files", match_files)
    monkeypatch.setattr(blocks, "at_hand", functools.partial(blocks.at_hand, patience=QUICK))
    return hub_server


def shards(folder):
    for shard in range(NUM_SHARDS):
        texts = [f"chat {n} dort dans la cour {shard}" for n in range(150)]
        path = folder / f"train-{shard}.parquet"
        table = pyarrow.table({"text": texts, "other": [b"x" * 40] * 150})
        pyarrow.parquet.write_table(table, path, row_group_size=60, compression="none")
        yield f"data/{path.name}", path.read_bytes()


def test_files_of_all_splits_make_one_source(hub):
    table = dict(hub.repositories["datasets/owner/wiki"].files)
    content = table["data/train-3.parquet"]
    names = ["default/train/0.parquet", "default/test/0.parquet", "default/README.md"]
    hub.add("owner/news", dict.fromkeys(names, content), kind="dataset")
    path = "hf://datasets/owner/news"
    source = SourceConfig(name="news", path=path, files="default/*")
    found = [file.name for file in listing.list_source(source).files]
    assert found == [f"{path}/default/test/0.parquet", f"{path}/default/train/0.parquet"]
    assert len(list(read_documents(source))) == 300
    hub.add("owner/none", {"default/LICENCE": b"x"}, kind="dataset")
    other = dataclasses.replace(source, path="hf://datasets/owner/none")
    with pytest.raises(ValueError, match=r"of other kinds, such as default/LICENCE; usable are"):
        listing.list_source(other)


def prepare(tokenizer, folder, **options):
    return prepare_source(SOURCE, tokenizer, folder, config=CONFIG, **SIZES, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_documents_come_in_the_order_of_the_shards(hub):
    documents = list(read_documents(SOURCE))
    assert len(documents) == 150 * NUM_SHARDS
    assert documents[150] == "chat 0 dort dans la cour 1"
    with pytest.raises(ValueError, match=r"wiki/data/train-0.parquet, row 1 has no 'body'"):
        list(read_documents(SourceConfig(name="x", path=SOURCE.path, text_column="body")))


@pytest.mark.slow
def test_shards_are_taken_in_order_until_there_is_text_enough(hub, tokenizer, tmp_path):
    def num_shards(**limits):
        return len(set(read_documents(dataclasses.replace(SOURCE, **limits)))) / 150

    size = sum(len(file) for file in hub.repositories["datasets/owner/wiki"].files.values())
    assert num_shards(max_bytes=1) == 1
    assert num_shards(max_bytes=round(1.8 * size * 0.45)) == 2
    assert num_shards(max_bytes=10 * size) == NUM_SHARDS
    assert num_shards(max_bytes=900, expected_bytes=2_000) == 2
    assert num_shards(max_bytes=1_100, expected_bytes=2_000) == 3
    source = dataclasses.replace(SOURCE, max_bytes=900, expected_bytes=2_000)
    sample = set(sample_mixture([source], num_characters=10**6, seed=0))
    assert {text[-1] for text in sample} == {"0", "1"}
    hub.requests.clear()
    folder = prepare_source(source, tokenizer, tmp_path, config=CONFIG, **SIZES)
    assert {request.path[-9:] for request in hub.requests if "/resolve/" in request.path} == {
        "0.parquet",
        "1.parquet",
    }
    assert read_manifest(folder).source["num_files"] == 2


@pytest.mark.slow
def test_one_shard_is_on_the_disk_at_a_time_and_none_in_the_end(hub, tokenizer, tmp_path):
    seen = []

    def watch(progress):
        downloads = tmp_path / "out" / "wiki.unfinished" / "downloads"
        seen.append([path.name for path in downloads.iterdir()])

    folder = prepare(tokenizer, tmp_path / "out", progress=watch)
    assert max(map(len, seen)) == 1
    assert len({name for names in seen for name in names}) > 1
    assert list((tmp_path / "out").iterdir()) == [folder]
    assert read_manifest(folder).source["revision"] == (
        hub.repositories["datasets/owner/wiki"].revision
    )
    file = TokenFile(folder, "train", fingerprint=tokenizer.fingerprint)
    assert len(file.parts) > NUM_SHARDS
    assert file.num_documents > 500


@pytest.mark.slow
def test_a_finished_source_asks_the_hub_nothing(hub, tokenizer, tmp_path):
    prepare(tokenizer, tmp_path)
    hub.requests.clear()
    hub.add("owner/wiki", {}, kind="dataset")
    prepare(tokenizer, tmp_path)
    assert hub.requests == []


@pytest.mark.slow
def test_a_run_without_network_goes_on_with_the_shard_that_it_lacks(hub, tokenizer, tmp_path):
    expected = contents(prepare(tokenizer, tmp_path / "whole"))
    down = [Fault("status", status=503)] * QUICK.num_tries
    hub.fail("train-2.parquet", Fault("cut", num_bytes=1_000), *down[1:])
    with pytest.raises(OSError, match="2 tries failed.*what has arrived is kept"):
        prepare(tokenizer, tmp_path / "cut")
    hub.requests.clear()
    assert contents(prepare(tokenizer, tmp_path / "cut")) == expected
    assert not hub.asked("train-0.parquet")
    assert not hub.asked("train-1.parquet")
    assert len(hub.asked("train-2.parquet")) == 1


@pytest.mark.slow
def test_each_shard_is_fetched_once(hub, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "_SAMPLE_BYTES", 1_000)  # less than a shard, as it usually is
    prepare(tokenizer, tmp_path)
    assert [len(hub.asked(f"train-{n}.parquet")) for n in range(NUM_SHARDS)] == [1] * NUM_SHARDS


@pytest.mark.slow
def test_wrong_bytes_never_become_tokens(hub, tokenizer, tmp_path):
    expected = contents(prepare(tokenizer, tmp_path / "whole"))
    hub.fail("train-1.parquet", Fault("wrong"), Fault("html"))
    with pytest.raises(OSError, match="2 tries failed"):
        prepare(tokenizer, tmp_path / "cut")
    assert contents(prepare(tokenizer, tmp_path / "cut")) == expected


@pytest.mark.slow
def test_a_vocabulary_sample_fetches_a_few_shards(hub):
    sample = list(sample_mixture([SOURCE], num_characters=2_000, seed=0))
    fetched = {request.path for request in hub.asked(".parquet")}
    assert len(fetched) == 3
    assert 20 < len(sample) < 200
    assert sample == list(sample_mixture([SOURCE], num_characters=2_000, seed=0))


def test_the_room_for_a_shard_is_asked_for_before_anything_is_fetched(
    hub, tokenizer, tmp_path, monkeypatch
):
    full = shutil._ntuple_diskusage(0, 0, 1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    with pytest.raises(OSError, match="make room"):
        prepare(tokenizer, tmp_path)
    assert not hub.asked(".parquet")

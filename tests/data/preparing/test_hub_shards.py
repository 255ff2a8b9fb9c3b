import json
import os
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest
from hub_server import Fault

from dimgpt.data.preparing.blocks import at_hand
from dimgpt.data.preparing.hub_shards import list_shards, match_files
from dimgpt.data.preparing.listing import SourceFile
from dimgpt.hub import Patience

QUICK = Patience(first_delay=0.01, timeout=5)
CARD = """---
configs:
- config_name: fr
  data_files:
  - split: train
    path: ["fr/b*.parquet", "fr/a*.parquet"]
  - split: test
    path: fr/test.parquet
- config_name: en
  data_files: en/**/*.parquet
---
# Two languages
"""
CARD_OF_DEFAULTS = """---
configs:
- config_name: small
  data_dir: small
- config_name: large
  default: true
  data_dir: large
---
"""


def parquet(folder, *texts):
    path = folder / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": list(texts)}), path)
    return path.read_bytes()


@pytest.fixture
def content(tmp_path):
    return parquet(tmp_path, "one", "two")


def names(listing):
    return [shard.path for shard in listing]


def shards(hub, repo_id, **options):
    return list_shards(repo_id, endpoint=hub.endpoint, patience=QUICK, **options)


def fetched(shard, folder):
    return at_hand(SourceFile(name=shard.path, num_bytes=1, remote=shard), folder, patience=QUICK)


LAYOUTS = {
    "plain": {
        "data/train-00001-of-00002.parquet": None,
        "data/train-00000-of-00002.parquet": None,
        "data/test-00000-of-00001.parquet": None,
        "dataset_infos.json": b"{}",
        ".gitattributes": b"",
        "README.md": b"# A data set\n",
    },
    "card": {
        "README.md": CARD.encode(),
        **dict.fromkeys(["fr/a1.parquet", "fr/a2.parquet", "fr/b1.parquet", "fr/test.parquet"]),
        **dict.fromkeys(["en/2/x.parquet", "en/1/y.parquet", "de/x.parquet"]),
    },
    "defaults": {
        "README.md": CARD_OF_DEFAULTS.encode(),
        "small/train.parquet": None,
        "large/train/1.parquet": None,
        "large/train/0.parquet": None,
        "large/validation/0.parquet": None,
    },
    "folders": {"train/1.parquet": None, "train/0.parquet": None, "valid/0.parquet": None},
    "loose": {"b.parquet": None, "a.parquet": None},
}
ASKED = {
    ("plain", None, "train"): [
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
    ],
    ("plain", None, "test"): ["data/test-00000-of-00001.parquet"],
    ("card", "fr", "train"): ["fr/b1.parquet", "fr/a1.parquet", "fr/a2.parquet"],
    ("card", "fr", "test"): ["fr/test.parquet"],
    ("card", "en", "train"): ["en/1/y.parquet", "en/2/x.parquet"],
    ("defaults", None, "train"): ["large/train/0.parquet", "large/train/1.parquet"],
    ("defaults", "small", "train"): ["small/train.parquet"],
    ("folders", None, "train"): ["train/0.parquet", "train/1.parquet"],
    ("folders", None, "validation"): ["valid/0.parquet"],
    ("loose", None, "train"): ["a.parquet", "b.parquet"],
}


@pytest.fixture
def hub(hub_server, content):
    for name, files in LAYOUTS.items():
        filled = {path: content if data is None else data for path, data in files.items()}
        hub_server.add(f"owner/{name}", filled, kind="dataset")
    return hub_server


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "expected"), ASKED.items())
def test_the_files_of_a_split_are_listed(hub, content, asked, expected):
    name, config, split = asked
    listing = shards(hub, f"owner/{name}", config=config, split=split)
    assert names(listing) == expected
    revision = hub.repositories[f"datasets/owner/{name}"].revision
    assert {shard.revision for shard in listing} == {revision}
    assert {shard.size for shard in listing} == {len(content)}
    assert hub.asked(".parquet") == []


REFERENCE = """
import json, sys
import datasets
answers = []
for name, config, split, revision in json.loads(sys.argv[1]):
    builder = datasets.load_dataset_builder(f"owner/{name}", name=config, revision=revision)
    answers.append(list(builder.config.data_files[split]))
    if (name, config, split) == ("card", "fr", "train"):
        rows = list(datasets.load_dataset(
            "owner/card", "fr", split=split, streaming=True, revision=revision
        ))
print(json.dumps({"files": answers, "rows": [row["text"] for row in rows]}))
"""


@pytest.mark.slow
def test_the_files_are_those_that_datasets_itself_reads_from_the_hub(hub, tmp_path):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path),
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "USE_TORCH": "0",  # its import takes longer than all the rest
    }
    asked, expected = [], []
    for (name, config, split), paths in ASKED.items():
        # With a commit for a revision, `datasets` asks no other server of the hub's.
        revision = hub.repositories[f"datasets/owner/{name}"].revision
        asked.append([name, config, split, revision])
        expected.append([f"hf://datasets/owner/{name}@{revision}/{path}" for path in paths])
    answered = subprocess.run(
        [sys.executable, "-c", REFERENCE, json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(answered.stdout)
    assert answer["files"] == expected
    assert answer["rows"] == ["one", "two"] * 3


@pytest.mark.slow
def test_the_name_of_a_repository_makes_no_split(hub, content):
    hub.add("owner/test", {"a.parquet": content, "b.parquet": content}, kind="dataset")
    assert names(shards(hub, "owner/test")) == ["a.parquet", "b.parquet"]


@pytest.mark.slow
def test_other_kinds_of_files_are_listed(hub):
    files = {f"x-{number}.jsonl.{kind}": b"\0" for number, kind in enumerate(("gz", "zst"))}
    hub.add("owner/lines", {**files, "README.md": b"# x", "LICENSE": b"y"}, kind="dataset")
    assert names(shards(hub, "owner/lines")) == sorted(files)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("fr/*.parquet", ["fr/a1.parquet", "fr/a2.parquet", "fr/b1.parquet", "fr/test.parquet"]),
        ("en/**", ["en/1/y.parquet", "en/2/x.parquet"]),
        ("*/x.parquet", ["de/x.parquet", "en/2/x.parquet"]),
        ("fr/[ab]1.parquet", ["fr/a1.parquet", "fr/b1.parquet"]),
    ],
)
def test_a_pattern_names_files_across_splits_and_configurations(hub, pattern, expected):
    found = match_files("owner/card", pattern, endpoint=hub.endpoint, patience=QUICK)
    assert names(found) == expected


def test_a_pattern_that_no_file_matches_is_refused_with_what_is_there(hub):
    with pytest.raises(ValueError, match=r"matches 'it/\*': it has README.md, .*, …; correct") as e:
        match_files("owner/card", "it/*", endpoint=hub.endpoint, patience=QUICK)
    assert "\n" not in str(e.value)


def test_a_pinned_revision_is_kept_to(hub):
    revision = hub.repositories["datasets/owner/loose"].revision
    assert shards(hub, "owner/loose", revision=revision)[0].revision == revision
    hub.add("owner/loose", {"c.parquet": b"x"}, kind="dataset")
    assert names(shards(hub, "owner/loose")) == ["c.parquet"]
    with pytest.raises(FileNotFoundError, match="has no such revision"):
        shards(hub, "owner/loose", revision=revision)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("card", {}, r"owner/card, configuration None, .*'fr', 'en'"),
        ("card", {"config": "it"}, r"owner/card, configuration 'it', .*'fr', 'en'"),
        ("card", {"config": "en", "split": "dev"}, r"has no split 'dev'; it has: train"),
    ],
)
def test_what_a_data_set_does_not_have_is_said(hub, name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        shards(hub, f"owner/{name}", **options)
    assert "\n" not in str(caught.value)
    assert "dimgpt-" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"bad.py": b"raise SystemExit", "x.parquet": b"x"}, r"loaded by a script, bad\.py"),
        ({"README.md": b"---\nconfigs: [\n---\n", "x.parquet": b"x"}, "cannot be used"),
        ({"README.md": b"---\nconfigs: 3\n---\n", "x.parquet": b"x"}, "cannot be used"),
        ({"README.md": b"\xff\xfe---", "x.parquet": b"x"}, "cannot be used"),
        ({"README.md": b"# nothing else"}, "cannot be used"),
        ({"x.zip": b"PK"}, "cannot be used|has no"),
    ],
)
def test_a_data_set_that_cannot_be_read_is_refused_in_one_line(hub, files, message):
    hub.add("owner/bad", files, kind="dataset")
    with pytest.raises(ValueError, match=message) as caught:
        shards(hub, "owner/bad")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["/etc/hostname", "../../etc/hostname", "../x.parquet"])
def test_a_card_cannot_name_files_of_this_machine(hub, tmp_path, place):
    card = f"---\nconfigs:\n- config_name: x\n  data_files: {place}\n---\n"
    hub.add("owner/bad", {"README.md": card.encode(), "x.parquet": b"x"}, kind="dataset")
    with pytest.raises(ValueError, match=r"owner/bad.*(cannot be used|is not in it)"):
        shards(hub, "owner/bad")


def test_a_shard_is_there_inside_the_block_only(hub, tmp_path, content):
    hub.fail("a.parquet", Fault("cut", num_bytes=100))
    shard = shards(hub, "owner/loose")[0]
    with fetched(shard, tmp_path / "scratch") as path:
        assert path.read_bytes() == content
        assert path.name.endswith("a.parquet")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_shard_whose_block_fails_is_not_fetched_again(hub, tmp_path, content):
    shard = shards(hub, "owner/loose")[0]
    with pytest.raises(KeyboardInterrupt), fetched(shard, tmp_path):
        raise KeyboardInterrupt
    with fetched(shard, tmp_path) as path:
        assert path.read_bytes() == content
    assert len(hub.asked("a.parquet")) == 1
    assert not path.exists()


def test_shards_of_the_same_name_do_not_meet(hub, tmp_path, content):
    hub.add("owner/two", {"a/x.parquet": content, "b/x.parquet": content + b"x"}, kind="dataset")
    first, second = shards(hub, "owner/two")
    with pytest.raises(KeyboardInterrupt), fetched(first, tmp_path):
        raise KeyboardInterrupt
    with fetched(second, tmp_path) as path:
        assert path.read_bytes() == content + b"x"

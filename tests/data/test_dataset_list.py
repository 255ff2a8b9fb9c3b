"""toyGPT's list of data sets: what each entry means, and which entries are refused."""

import json

import pytest

from dimgpt.data.dataset_list import read_dataset_list
from dimgpt.presets import PRESETS
from dimgpt.workspace import customise_data

# The list that toyGPT comes with names these three.
LIST = [
    {"name": "wikimedia/wikisource", "subset": ["20231201.en"], "column": "text"},
    {"name": "togethercomputer/RedPajama-Data-1T-Sample", "subset": [None], "column": "text"},
    {"name": "wikimedia/wikipedia", "subset": ["20231101.en", "20231101.fr"], "column": "body"},
]


@pytest.fixture
def write(tmp_path):
    def write(entries, name="datasets.json"):
        path = tmp_path / name
        path.write_text(json.dumps(entries), encoding="utf-8")
        return path

    return write


def test_each_subset_becomes_a_source_of_the_hub(write):
    sources = customise_data(PRESETS["demo"], sources=[str(write(LIST))]).data.sources
    assert [(source.name, source.path, source.hub_config) for source in sources] == [
        ("wikisource", "hf://datasets/wikimedia/wikisource", "20231201.en"),
        (
            "RedPajama-Data-1T-Sample",
            "hf://datasets/togethercomputer/RedPajama-Data-1T-Sample",
            None,
        ),
        ("wikipedia", "hf://datasets/wikimedia/wikipedia", "20231101.en"),
        ("wikipedia-2", "hf://datasets/wikimedia/wikipedia", "20231101.fr"),
    ]
    assert [source.text_column for source in sources] == ["text", "text", "body", "body"]
    assert {source.multiplier for source in sources} == {1.0}


def test_with_toygpts_preset_its_list_names_what_the_preset_reads(write):
    preset = PRESETS["toygpt-small"]
    listed = [{**entry, "column": "text"} for entry in LIST]
    listed[2] = {**listed[2], "subset": ["20231101.en"]}
    sources = customise_data(preset, sources=[str(write(listed))]).data.sources
    places = [(source.path, source.hub_config, source.revision) for source in sources]
    assert places == [(s.path, s.hub_config, s.revision) for s in preset.data.sources]
    assert [source.licence for source in sources] == [s.licence for s in preset.data.sources]


@pytest.mark.parametrize("entry", [{}, {"subset": None}, {"subset": [None]}])
def test_a_data_set_without_subsets_is_one_source(write, entry):
    path = write([{"name": "a/b", "column": "text", **entry}])
    assert read_dataset_list(path) == [("hf://datasets/a/b", None, "text")]


def test_an_address_that_is_given_by_hand_takes_nothing_from_the_preset():
    path = "hf://datasets/togethercomputer/RedPajama-Data-1T-Sample"
    [source] = customise_data(PRESETS["toygpt-small"], sources=[path]).data.sources
    assert (source.revision, source.licence) == (None, "")


def test_a_list_and_files_are_read_together(write):
    paths = ["my_texts/", str(write(LIST[:1]))]
    sources = customise_data(PRESETS["demo"], sources=paths).data.sources
    assert [source.name for source in sources] == ["my_texts", "wikisource"]


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"column": "text"}, "entry 2: name is missing"),
        ({"name": 3, "column": "text"}, "entry 2: name is 3"),
        ({"name": "a/b", "subset": None}, "entry 2: column is missing"),
        ({"name": "a/b", "column": ""}, "entry 2: column is ''"),
        ({"name": "a/b", "column": "text", "split": "train"}, "entry 2 has 'split'"),
        ({"name": "a/b", "column": "text", "subset": "en"}, "entry 2: subset is 'en'"),
        ({"name": "a/b", "column": "text", "subset": []}, r"entry 2: subset is \[\]"),
        ({"name": "a/b", "column": "text", "subset": [None, 3]}, r"subset is \[None, 3\]"),
    ],
)
def test_an_entry_that_means_nothing_is_refused_by_what_is_wrong(write, entry, reason):
    with pytest.raises(ValueError, match=reason) as told:
        read_dataset_list(write([LIST[0], entry]))
    assert "\n" not in str(told.value)


def test_a_column_beside_a_list_is_refused(write):
    with pytest.raises(ValueError, match="text_column is 'body': .* names the columns"):
        customise_data(PRESETS["demo"], sources=[str(write(LIST))], text_column="body")


@pytest.mark.parametrize(
    "content",
    [
        [{"text": "Le zébu broute.", "column": 3}],
        [{"title": "Le zébu"}],
        {"name": "a/b", "column": "text"},
        ["a/b"],
        [],
        3,
    ],
)
def test_other_json_is_no_list_of_data_sets(write, content):
    assert read_dataset_list(write(content)) is None


def test_what_is_no_small_json_file_is_not_read(tmp_path, write):
    assert read_dataset_list(write(LIST, "datasets.jsonl")) is None
    assert read_dataset_list(tmp_path / "missing.json") is None
    (tmp_path / "broken.json").write_text("[{")
    assert read_dataset_list(tmp_path / "broken.json") is None
    assert read_dataset_list(write([*LIST, {"name": "x" * 10**6, "column": "text"}])) is None

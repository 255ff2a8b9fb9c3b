"""Token files of DimensionGPT, from its folder to a training run's batches."""

from pathlib import Path

import pytest
from originals import write_dimensiongpt_data

from dimgpt.cli import main
from dimgpt.config import ConversationSourceConfig
from dimgpt.pipeline.data import open_data, read_reports, require_conversations
from dimgpt.presets import get_preset
from dimgpt.settings import override
from dimgpt.workspace import Workspace

VOCABULARY = Path(__file__).parents[1] / "fixtures" / "dimensiongpt_sampling" / "vocab_512.txt"


@pytest.fixture
def original(tmp_path, monkeypatch):
    """A data folder as the original leaves it, and a working directory beside it."""
    monkeypatch.chdir(tmp_path)
    return write_dimensiongpt_data(tmp_path / "original", VOCABULARY)


def workspace(name="dimensiongpt"):
    preset = override(get_preset("dimensiongpt-0.2b"), name=name)
    return Workspace(preset=preset)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_verb_takes_over_files_vocabulary_multipliers_and_published_ratios(original, capsys):
    before = files_of(original)
    main(["import-data", "original"])
    shown = capsys.readouterr().out.split()
    assert {"web", "human", "0.3"} <= set(shown)
    assert files_of(original) == before
    (human,) = require_conversations(workspace())
    assert isinstance(human, ConversationSourceConfig)
    assert (human.ratio, human.system_prompt_ratios) == (0.099, {"human": 0.3})
    made = override(workspace().preset, model=override(workspace().preset.model, vocab_size=512))
    made = override(made, pretraining=override(made.pretraining, batch_size=2))
    for stage in ("pretraining", "finetuning"):
        batches = open_data(Workspace(preset=made), stage).batches(0)
        assert batches


def test_its_report_tells_documents_characters_and_what_they_look_like(original):
    main(["import-data", "original"])
    web, human = read_reports(workspace())
    assert web.num_documents == 20
    assert sum(web.lengths.values()) == 20
    assert web.num_characters == sum(
        len(f"le chat {number} dort dans la cour et mange") for number in range(20)
    )
    assert any("le chat 7 dort" in text for text in web.sample_texts())
    assert human.num_documents == 9


def test_the_same_import_once_more_changes_nothing_and_another_vocabulary_stays(original):
    main(["import-data", "original", "--name", "old"])
    before = files_of(Path("data"))
    main(["import-data", "original", "--name", "old"])
    assert files_of(Path("data")) == before
    lines = VOCABULARY.read_bytes().splitlines(keepends=True)
    Path("other.txt").write_bytes(b"".join(lines[:-1]).rstrip())
    with pytest.raises(SystemExit, match="is another vocabulary: choose another name"):
        main(["import-data", "original", "--name", "old", "--vocabulary", "other.txt"])
    assert files_of(Path("data")) == before


def test_without_its_vocabulary_what_is_missing_is_said(original):
    (original / "vocab.txt").unlink()
    with pytest.raises(SystemExit, match=r"vocab\.txt is missing.*--vocabulary"):
        main(["import-data", "original"])
    assert not Path("data").exists()

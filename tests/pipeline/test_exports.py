from pathlib import Path

import pytest
import torch

from dimgpt.cli import main
from dimgpt.config import ExportConfig, ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.pipeline.models import export
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.card import Card
from dimgpt.weights.store import load_model, load_tokenizer, save_model

VOCABULARY = Path(__file__).parents[1] / "fixtures" / "dimensiongpt_sampling" / "vocab_512.txt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = ModelConfig(
        vocab_size=512,
        context_length=32,
        window_size=8,
        embedding_dim=32,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        ffn_dim=20,
    )
    torch.manual_seed(0)
    card = Card(facts={"Validation bits per byte": "1.234"})
    folder = tmp_path / "models" / "small"
    save_model(
        Transformer(config), folder, GreedyTokenizer.load(VOCABULARY), card=card, curves=b"png"
    )
    return folder


@pytest.mark.slow
def test_an_export_lies_beside_its_model_and_tells_its_facts(folder: Path) -> None:
    made = export(folder, ExportConfig(target="transformers", dtype="bf16"))
    assert made == folder.with_name("small-transformers-bf16")
    text = (made / "README.md").read_text("utf-8")
    assert "# small" in text
    assert "| Validation bits per byte | 1.234 |" in text
    assert (made / "curves.png").read_bytes() == b"png"


def test_the_verb_exports_and_lists_the_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "copy"
    main(["export", str(folder), "--to", "safetensors", "--output", str(output)])
    assert "model.safetensors" in capsys.readouterr().out
    ids = torch.arange(20, 40)[None]
    assert torch.equal(load_model(output)(ids), load_model(folder)(ids))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["transformers", "pt"])
def test_an_export_is_imported_again(folder: Path, tmp_path: Path, target: str) -> None:
    made = export(folder, ExportConfig(target=target))
    command = "python -m dimgpt import model.pt "
    words = ["import", str(made)]
    if target == "pt":
        text = (made / "README.md").read_text("utf-8")
        words += text.split(command)[1].split("`")[0].split()
    main([*words, "--name", "back", "--models-root", str(tmp_path)])
    ids = torch.arange(20, 40)[None]
    assert torch.equal(load_model(tmp_path / "back")(ids), load_model(folder)(ids))
    ours, back = load_tokenizer(folder), load_tokenizer(tmp_path / "back")
    assert back.fingerprint == ours.fingerprint


def test_the_models_own_folder_is_never_the_output(folder: Path) -> None:
    with pytest.raises(SystemExit, match="it is not overwritten"):
        main(["export", str(folder), "--to", "pt", "--output", str(folder)])
    assert (folder / "model.safetensors").exists()


def test_a_damaged_model_is_not_exported(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(SystemExit, match="SHA-256 differs"):
        main(["export", str(folder), "--to", "transformers"])
    assert [path.name for path in folder.parent.iterdir()] == ["small"]

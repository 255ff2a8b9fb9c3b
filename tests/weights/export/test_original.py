from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dimgpt.config import ExportConfig
from dimgpt.model.transformer import Transformer
from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.card import Card
from dimgpt.weights.export.exporter import export_model, write_original
from dimgpt.weights.originals import load_original

TINY_PT = Path(__file__).parents[2] / "fixtures" / "dimensiongpt" / "tiny.pt"


def test_the_file_is_the_one_that_the_original_wrote(
    tiny_model: Transformer, tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    write_original(tiny_model, tokenizer, tmp_path)
    theirs = torch.load(TINY_PT, weights_only=True)
    ours = torch.load(tmp_path / "model.pt", weights_only=True)
    assert sorted(ours) == sorted(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    output, embedding = ours["final_linear.weight"], ours["token_embedding.weight"]
    assert output.data_ptr() == embedding.data_ptr()
    assert GreedyTokenizer.load(tmp_path / "vocab.txt").tokens == tokenizer.tokens


def test_a_round_trip_gives_the_same_model(
    make_model: Callable[..., Transformer], tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    model = make_model()
    usage = write_original(model, tokenizer, tmp_path)
    again = load_original(tmp_path / "model.pt", model.config).model
    ids = torch.arange(20, 60)[None]
    assert torch.equal(again(ids), model(ids))
    assert "import model.pt --context-length 64 --window-size 16 --num-heads 4" in usage.text


@pytest.mark.parametrize(
    "changes",
    [{"norm_eps": 1e-6}, {"tie_embeddings": False}, {"use_final_norm": False}, {"norm": "layer"}],
)
def test_other_parts_are_refused_by_name(
    make_model: Callable[..., Transformer],
    tokenizer: GreedyTokenizer,
    tmp_path: Path,
    changes: dict[str, object],
) -> None:
    with pytest.raises(ValueError, match=f"no such model: {next(iter(changes))} is"):
        export_model(
            make_model(**changes), tokenizer, tmp_path, ExportConfig(target="pt"), card=Card()
        )


def test_a_byte_level_tokenizer_is_refused(
    make_model: Callable[..., Transformer], llama_tokenizer: ByteLevelTokenizer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"a tokenizer.json.*reads a vocab.txt only"):
        write_original(make_model(vocab_size=300), llama_tokenizer, tmp_path)

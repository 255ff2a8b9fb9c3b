"""What llama.cpp itself makes of the files, where its Python package is installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dimgpt.model.transformer import Transformer
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.export.gguf_file import exact_context_length, write_gguf

TEXTS = ("Le chat", "l’été « à » ❤\ufe0f", "Bonjour\tà tous\nen 2024 !")


@pytest.fixture(scope="module")
def llama_cpp() -> Any:
    return pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")


def open_file(llama_cpp: Any, folder: Path, model: Transformer) -> Any:
    (path,) = folder.glob("*.gguf")
    context = exact_context_length(model.config)
    float32 = llama_cpp.GGML_TYPE_F32  # keys and values too: by default they are half precision
    return llama_cpp.Llama(
        str(path), n_ctx=context, logits_all=True, type_k=float32, type_v=float32, verbose=False
    )


@pytest.fixture(params=["tiny_model", "qwen_model"])
def model(request: pytest.FixtureRequest) -> Transformer:
    found: Transformer = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 1e-4), ("q8_0", 0.5)])
def test_logits_and_decoded_text_are_ours(
    llama_cpp: Any,
    model: Transformer,
    tokenizer: GreedyTokenizer,
    tmp_path: Path,
    dtype: Any,
    tolerance: float,
) -> None:
    write_gguf(model, tokenizer, tmp_path, name="tiny", dtype=dtype)
    theirs = open_file(llama_cpp, tmp_path, model)
    ids = list(range(30, 30 + exact_context_length(model.config)))
    theirs.eval(ids)
    with torch.inference_mode():
        ours = model(torch.tensor([ids]))[0].numpy()
    found = np.array(theirs.scores[: len(ids)])
    assert np.abs(found - ours).max() < tolerance
    for text in TEXTS:
        encoded = tokenizer.encode(text)
        assert theirs.detokenize(encoded).decode() == tokenizer.decode(encoded)


def test_greedy_tokens_are_ours_up_to_the_exact_context(
    llama_cpp: Any, model: Transformer, tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    write_gguf(model, tokenizer, tmp_path, name="tiny", dtype="f32")
    theirs = open_file(llama_cpp, tmp_path, model)
    ids = tokenizer.encode_beginning("Le chat")
    room = exact_context_length(model.config) - len(ids)
    found = [id for id, _ in zip(theirs.generate(ids, temp=0.0), range(room), strict=False)]
    for _ in range(room):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    assert found == ids[-room:]

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dimgpt.model.transformer import Transformer
from dimgpt.text.byte_level import ByteLevelTokenizer
from dimgpt.text.greedy_tokenizer import GreedyTokenizer
from dimgpt.weights.card import Usage
from dimgpt.weights.export.gguf_file import exact_context_length, write_gguf

pytestmark = pytest.mark.slow

NAMES = {
    "token_embd.weight": "token_embedding.weight",
    "blk.1.attn_q.weight": "blocks.1.attention.query.weight",
    "blk.1.attn_k.weight": "blocks.1.attention.key.weight",
    "blk.2.ffn_down.weight": "blocks.2.feed_forward.down.weight",
    "blk.2.ffn_gate.weight": "blocks.2.feed_forward.gate.weight",
    "output_norm.weight": "final_norm.weight",
}


@pytest.fixture(scope="module")
def gguf() -> Any:
    return pytest.importorskip("gguf", reason="the package gguf is not installed")


def read(gguf: Any, folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the entries and the dequantized tensors of the file in a folder."""
    (path,) = folder.glob("*.gguf")
    return contents(gguf, gguf.GGUFReader(path))


def contents(gguf: Any, reader: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    assert all(tensor.data_offset % reader.alignment == 0 for tensor in reader.tensors)
    entries = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in reader.tensors
    }
    return entries, tensors


@pytest.fixture(scope="module")
def written(
    gguf: Any,
    tiny_model: Transformer,
    tokenizer: GreedyTokenizer,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, Any], dict[str, np.ndarray], Usage]:
    """What one file with a vocabulary of DimensionGPT holds.

    Its reader takes seconds: the one with which `write_gguf` checks the file is used again.
    """
    folder, open_file, readers = tmp_path_factory.mktemp("gguf"), gguf.GGUFReader, []

    def remember(path: Path) -> Any:
        readers.append(open_file(path))
        return readers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "GGUFReader", remember)
        usage = write_gguf(tiny_model, tokenizer, folder, name="tiny", dtype="f32")
    return (*contents(gguf, readers[0]), usage)


@pytest.fixture(scope="module")
def small_model(make_model: Callable[..., Transformer]) -> Transformer:
    """A model with a window, for the small byte-level tokenizer."""
    return make_model(vocab_size=300)


def test_a_file_in_full_precision_holds_every_tensor_unpermuted(
    written: tuple[dict, dict, Usage], tiny_model: Transformer
) -> None:
    _, tensors, _ = written
    ours = tiny_model.state_dict()
    assert len(tensors) == len(ours)
    for theirs, name in NAMES.items():
        np.testing.assert_array_equal(tensors[theirs], ours[name].numpy())
    assert "output.weight" not in tensors  # tied


def test_normalised_queries_and_keys_make_a_qwen3_of_halves(
    gguf: Any, make_model: Callable, llama_tokenizer: ByteLevelTokenizer, tmp_path: Path
) -> None:
    model = make_model(vocab_size=300, qk_norm=True, attention_pattern=("full", "window"))
    usage = write_gguf(model, llama_tokenizer, tmp_path, name="tiny", dtype="f16")
    entries, tensors = read(gguf, tmp_path)
    assert entries["general.architecture"] == "qwen3"
    assert entries["qwen3.attention.key_length"] == 16
    assert entries["qwen3.context_length"] == 17  # of the layers that have a window
    assert any("17 tokens" in note for note in usage.notes)
    attention, num_heads = model.blocks[2].attention, {"q": 4, "k": 2}
    weights = {
        "q": (attention.query, attention.query_norm),
        "k": (attention.key, attention.key_norm),
    }
    for name, (matrix, norm) in weights.items():
        order = [*range(0, 16, 2), *range(1, 16, 2)]  # of the channels of a head
        rows = matrix.weight.detach().half().float().unflatten(0, (num_heads[name], 16))
        found = tensors[f"blk.2.attn_{name}.weight"]
        np.testing.assert_array_equal(found, rows[:, order].flatten(0, 1).numpy())
        found = tensors[f"blk.2.attn_{name}_norm.weight"]  # float32
        np.testing.assert_array_equal(found, norm.weight.detach()[order].numpy())
    known = {gguf.TENSOR_NAMES[kind] for kind in gguf.MODEL_TENSORS[gguf.MODEL_ARCH.QWEN3]}
    assert {
        re.sub(r"blk\.\d+", "blk.{bid}", name).removesuffix(".weight") for name in tensors
    } <= known


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_matrices_and_keeps_norms(
    gguf: Any,
    small_model: Transformer,
    llama_tokenizer: ByteLevelTokenizer,
    tmp_path: Path,
    dtype: torch.dtype,
) -> None:
    name = "f16" if dtype == torch.float16 else "bf16"
    write_gguf(small_model, llama_tokenizer, tmp_path, name="tiny", dtype=name)
    _, tensors = read(gguf, tmp_path)
    ours = small_model.state_dict()
    for theirs, mine in NAMES.items():
        weight = ours[mine]
        expected = weight.to(dtype).float() if weight.dim() == 2 else weight
        np.testing.assert_array_equal(tensors[theirs], expected.numpy())


def test_blocks_of_eight_bits_are_padded_with_zeros_and_close(
    gguf: Any, small_model: Transformer, llama_tokenizer: ByteLevelTokenizer, tmp_path: Path
) -> None:
    write_gguf(small_model, llama_tokenizer, tmp_path, name="tiny", dtype="q8_0")
    entries, tensors = read(gguf, tmp_path)
    ours = small_model.state_dict()
    assert entries["llama.feed_forward_length"] == 192  # 170 up to the next multiple of 32
    assert entries["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    for theirs, name in NAMES.items():
        weight = ours[name].numpy()
        inside = tuple(slice(size) for size in weight.shape)
        found = tensors[theirs][inside]
        assert np.abs(found - weight).max() <= np.abs(weight).max() / 127 * 0.51
        assert np.abs(tensors[theirs]).sum() == pytest.approx(np.abs(found).sum())


def test_the_context_is_what_a_model_without_a_window_reads_alike(
    written: tuple[dict, dict, Usage], tiny_model: Transformer, make_model: Callable
) -> None:
    entries, _, usage = written
    assert entries["llama.context_length"] == 17
    assert any("17 tokens" in note for note in usage.notes)
    full = make_model(window_size=None)
    full.load_state_dict(tiny_model.state_dict())
    ids = torch.arange(20, 38)[None]
    with torch.inference_mode():
        difference = (full(ids) - tiny_model(ids)).abs().amax(dim=-1)[0]
    assert difference[:17].max() < 1e-5 < difference[17]
    assert exact_context_length(full.config) == 64
    assert exact_context_length(make_model(attention_pattern=("full",)).config) == 64
    assert exact_context_length(make_model(attention_pattern=("full", "window")).config) == 17


def test_shape_and_tokens_are_described(
    written: tuple[dict, dict, Usage], tokenizer: GreedyTokenizer
) -> None:
    entries, _, _ = written
    assert entries["general.architecture"] == "llama"
    assert entries["general.name"] == "tiny"
    assert entries["llama.attention.head_count_kv"] == 2
    assert entries["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert entries["tokenizer.ggml.bos_token_id"] == 2
    assert entries["tokenizer.ggml.eos_token_id"] == 9
    assert entries["tokenizer.ggml.eot_token_id"] == 7
    tokens = entries["tokenizer.ggml.tokens"]
    assert len(tokens) == 512
    assert tokens[3:5] == ["\t", "\n"]
    texts = [token.replace("▁", " ") for token in tokens[10:]]
    assert texts == [tokenizer.token_text(id) for id in range(10, 512)]
    assert "{% generation" not in entries["tokenizer.chat_template"]


def test_byte_level_tokens_are_gpt2s_with_their_merges(
    gguf: Any, llama_model: Transformer, llama_tokenizer: ByteLevelTokenizer, tmp_path: Path
) -> None:
    usage = write_gguf(llama_model, llama_tokenizer, tmp_path, name="tiny", dtype="f16")
    entries, _ = read(gguf, tmp_path)
    assert entries["tokenizer.ggml.model"] == "gpt2"
    assert entries["tokenizer.ggml.tokens"] == list(llama_tokenizer.tokens)
    merges = json.loads(llama_tokenizer.to_bytes())["model"]["merges"]
    assert [merge.split(" ") for merge in entries["tokenizer.ggml.merges"]] == merges
    assert entries["tokenizer.ggml.token_type"][:3] == [3, 3, 3]
    assert entries["tokenizer.ggml.add_bos_token"] is False
    assert any("space" in note for note in usage.notes)
    assert "'<r0> user<r1>'" in entries["tokenizer.chat_template"]


def test_widths_that_do_not_fit_blocks_are_refused(
    gguf: Any, make_model: Callable[..., Transformer], tokenizer: GreedyTokenizer, tmp_path: Path
) -> None:
    model = make_model(embedding_dim=48)
    with pytest.raises(ValueError, match="embedding_dim is 48.*blocks of 32.*--dtype f16"):
        write_gguf(model, tokenizer, tmp_path, name="tiny", dtype="q8_0")


def test_a_file_that_the_disk_changed_is_noticed(
    gguf: Any,
    small_model: Transformer,
    llama_tokenizer: ByteLevelTokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def damage(writer: Any) -> None:
        close(writer)
        (path,) = tmp_path.glob("*.gguf")
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)

    close = gguf.GGUFWriter.close
    monkeypatch.setattr(gguf.GGUFWriter, "close", damage)
    with pytest.raises(OSError, match="does not hold"):
        write_gguf(small_model, llama_tokenizer, tmp_path, name="tiny", dtype="f32")


def test_without_the_package_the_error_says_what_to_install(
    small_model: Transformer,
    llama_tokenizer: ByteLevelTokenizer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match="pip install gguf"):
        write_gguf(small_model, llama_tokenizer, tmp_path, name="tiny", dtype="f32")

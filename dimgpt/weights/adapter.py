"""Adapters on disk, in the format of the `peft` library, with its names of tensors.

    adapter_config.json         rank, alpha, dropout, and the names of the layers
    adapter_model.safetensors   the matrices, by the names of a Llama, Mistral or Qwen 3

So `peft.PeftModel.from_pretrained` loads them on the base model that `export --to transformers`
wrote. The rows of B of queries and keys are reordered like those of the weights, see
`huggingface.py`. https://huggingface.co/docs/peft/main/en/developer_guides/checkpoint
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from dimgpt.config import LoraConfig, ModelConfig
from dimgpt.config.rules import FileName, check_fields
from dimgpt.model.lora import adapter_tensors, add_adapters, base_tensors, merge_adapters
from dimgpt.model.transformer import Transformer
from dimgpt.weights.huggingface import LLAMA, halves_from_pairs, pairs_from_halves, reorder_heads
from dimgpt.weights.layout import require_finite

ADAPTER_NAME, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterBase:
    """The model that the adapters of a folder were trained on."""

    name: FileName
    """Name of its folder, which is beside that of the adapters."""
    sha256: str
    """Hash of its weights, see `fingerprint_base`."""
    lora: LoraConfig

    def __post_init__(self) -> None:
        check_fields(self)  # the name leads to no other place
        if not self.lora.rank:
            raise ValueError("lora.rank is 0: adapters have a rank of 1 or more")


def write_adapter(model: Transformer, folder: Path) -> None:
    """Write the adapters of a model into an existing folder."""
    tensors = {}
    for name, tensor in adapter_tensors(model).items():
        weight = _ordered(name, tensor.detach().cpu(), model.config, to_peft=True)
        tensors[_theirs(name)] = weight.contiguous()
    save_file(tensors, folder / ADAPTER_NAME, metadata={"format": "pt"})
    layers = {name.split(".")[-3] for name in tensors}
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": model.lora.rank,
        "lora_alpha": model.lora.alpha,
        "lora_dropout": model.lora.dropout,
        "target_modules": sorted(layers),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    (folder / _PEFT_CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def apply_adapter(
    model: Transformer, tensors: Mapping[str, Tensor], lora: LoraConfig, *, source: str
) -> None:
    """Merge the adapters of a file into the model that they were trained on.

    Args:
        model: The base model; changed in place.
        tensors: By the names that `write_adapter` gave them.
        lora: Their settings.
        source: The file, for messages.

    Raises:
        ValueError: The tensors are not adapters of this model, or not finite.
    """
    add_adapters(model, lora)
    wanted = adapter_tensors(model)
    shapes = {_theirs(name): tensor.shape for name, tensor in wanted.items()}
    if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
        raise ValueError(
            f"{source} does not fit its config: it holds no adapters of rank {lora.rank} for "
            f"{', '.join(lora.targets)} of this model; copy the folder again"
        )
    require_finite(tensors, source=source)
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(_ordered(name, tensors[_theirs(name)], model.config, to_peft=False))
        merge_adapters(model)


def fingerprint_base(model: Transformer) -> str:
    """Return the SHA-256 of a model's weights, without adapters, independent of the file format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(base_tensors(model).items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _theirs(name: str) -> str:
    """Return the name that peft gives to a tensor of an adapter.

    >>> _theirs("blocks.3.attention.query.lora_a")
    'base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight'
    """
    layer, _, part = name.rpartition(".")
    letter = part.removeprefix("lora_").upper()
    stem = LLAMA.theirs(f"{layer}.weight").removesuffix(".weight")
    return f"base_model.model.{stem}.lora_{letter}.weight"


def _ordered(name: str, tensor: Tensor, config: ModelConfig, *, to_peft: bool) -> Tensor:
    """Reorder the rows of B of queries or keys like those of the weight; A stays."""
    layer, _, part = name.rpartition(".")
    if part == "lora_a":
        return tensor
    order = halves_from_pairs if to_peft else pairs_from_halves
    return reorder_heads(f"{layer}.weight", tensor, config, order)

"""How another system names the tensors of our model, and the way from its names to a model.

Names, sizes and shapes are compared before anything is built, and what differs is listed in the
names of the system that the file comes from. Only a renaming is described here: where a system
stores numbers in another order, its own file puts them right.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.found import list_names
from dimgpt.weights.store import build_model

_MAX_LISTED = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The names of one system."""

    system: str
    """Its own name, for messages."""
    blocks: str
    """What comes before the number of a block."""
    outside: Mapping[str, str]
    """Their name -> ours, of the tensors outside the blocks."""
    inside: Mapping[str, str]
    """Their name -> ours, of those in a block, from its number on."""

    def ours(self, name: str) -> str | None:
        """Return our name of a tensor; `None` for one that we do not have."""
        match = re.fullmatch(rf"{re.escape(self.blocks)}\.(0|[1-9]\d{{0,5}})\.(.+)", name)
        if match is None:
            return self.outside.get(name)
        return f"blocks.{match[1]}.{self.inside[match[2]]}" if match[2] in self.inside else None

    def theirs(self, name: str) -> str:
        """Return their name of a tensor of ours."""
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
        if match is None:
            return next(theirs for theirs, ours in self.outside.items() if ours == name)
        inside = next(theirs for theirs, ours in self.inside.items() if ours == match[2])
        return f"{self.blocks}.{match[1]}.{inside}"


def without_output(
    tensors: Mapping[str, Tensor], *, output: str, embedding: str, layout: Layout, source: str
) -> dict[str, Tensor]:
    """Return the tensors without the output matrix, which must be the embedding's.

    Raises:
        ValueError: One of the two is missing, or they differ.
    """
    rest = {name: tensor for name, tensor in tensors.items() if name != output}
    if not {output, embedding} <= tensors.keys() or not _is_same(
        tensors[output], tensors[embedding]
    ):
        raise ValueError(
            f"{source}: {output} is not the same matrix as {embedding}, which {layout.system} "
            "ties; take the file that its trainer saved"
        )
    return rest


def sizes_in(tensors: Mapping[str, Tensor], layout: Layout, *, source: str) -> dict[str, int]:
    """Read the sizes that the tensors show: fields of `ModelConfig`, and `kv_dim`.

    Raises:
        ValueError: A tensor that shows a size is missing or no matrix.
    """
    names = (
        "token_embedding.weight",
        "blocks.0.attention.key.weight",
        "blocks.0.feed_forward.up.weight",
    )
    found = [tensors.get(layout.theirs(name)) for name in names]
    shapes: list[tuple[int, ...]] = [() if one is None else tuple(one.shape) for one in found]
    bad = [
        layout.theirs(name)
        for name, shape in zip(names, shapes, strict=True)
        if len(shape) != 2 or 0 in shape
    ]
    if bad:
        raise ValueError(
            f"{source} is no state dict of {layout.system}: {list_names(bad)} is missing or no "
            f"matrix among its {len(tensors)} tensors; take the file that its trainer saved"
        )
    ours = (layout.ours(name) for name in tensors)
    blocks = {name.split(".")[1] for name in ours if name and name.startswith("blocks.")}
    return {
        "vocab_size": shapes[0][0],
        "embedding_dim": shapes[0][1],
        "num_layers": len(blocks),
        "ffn_dim": shapes[2][0],
        "kv_dim": shapes[1][0],
    }


def assemble(
    tensors: Mapping[str, Tensor], config: ModelConfig, layout: Layout, *, source: str
) -> Transformer:
    """Build a model, in evaluation mode, of tensors with their names.

    Raises:
        ValueError: Sizes, names or shapes are not those of the config; all that differ are named.
    """
    _require_sizes(sizes_in(tensors, layout, source=source), config, source=source)
    with torch.device("meta"):
        expected = Transformer(config).state_dict()
    shapes = {layout.theirs(name): tuple(tensor.shape) for name, tensor in expected.items()}
    problems = [f"{name} is missing" for name in shapes if name not in tensors]
    problems += [f"{name} is unexpected" for name in tensors if name not in shapes]
    problems += [
        f"{name} is {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        raise ValueError(
            f"{source} is not the {layout.system} model that it seems to be: "
            f"{list_names(problems, limit=_MAX_LISTED)}; take the whole file from its source"
        )
    ours = {name: tensors[layout.theirs(name)].detach() for name in expected}
    return build_model(config, ours, source=source)


def _require_sizes(shown: Mapping[str, int], config: ModelConfig, *, source: str) -> None:
    """Refuse a file whose sizes are not those of the config, naming all that differ."""
    wanted = {**asdict(config), "kv_dim": config.num_kv_heads * config.head_dim}
    different = [
        f"{name} is {size} in the file and {wanted[name]} in the config"
        for name, size in shown.items()
        if size != wanted[name]
    ]
    if different:
        raise ValueError(
            f"{source}: {', '.join(different)} ({config.num_heads} query and {config.num_kv_heads} "
            "key-value heads); give the model's own heads with --num-heads and --num-kv-heads, or "
            "pass config= with all sizes"
        )


def _is_same(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    return first.data_ptr() == second.data_ptr() or torch.equal(first, second)

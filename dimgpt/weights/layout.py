"""Builds a model from tensors under any system's names.

All weights, of dimgpt or of other systems, are loaded by `build_model`, which first compares sizes,
names and shapes with the config. A layout only renames; a system that stores numbers in another
order reorders them in its own file.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from dimgpt.config import ModelConfig
from dimgpt.model.transformer import Transformer
from dimgpt.weights.foreign_files import list_names


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """The names that a system gives to the tensors of dimgpt's model."""

    system: str
    """Name of the system, for messages."""
    blocks: str = "blocks"
    """Prefix before the number of a block."""
    names: Mapping[str, str] = field(default_factory=dict)
    """dimgpt's name -> theirs; for a tensor in a block, the part after the number.

    The last part, such as `.weight`, may be left out if it is the same. Names that are not listed
    are the same in both systems.
    """

    def theirs(self, name: str) -> str:
        """Return their name of a tensor of ours.

        >>> Layout(system="GPT-2", blocks="h", names={"ffn_norm": "ln_2"}).theirs(
        ...     "blocks.3.ffn_norm.weight"
        ... )
        'h.3.ln_2.weight'
        """
        if block := re.fullmatch(r"blocks\.(\d+)\.(.+)", name):
            return f"{self.blocks}.{block[1]}.{self.theirs(block[2])}"
        stem, _, last = name.rpartition(".")
        if name not in self.names and stem in self.names:
            return f"{self.names[stem]}.{last}"
        return self.names.get(name, name)


OURS = Layout(system="dimgpt")


def build_model(
    config: ModelConfig, tensors: Mapping[str, Tensor], *, layout: Layout = OURS, source: str
) -> Transformer:
    """Build a model, in evaluation mode, from tensors that fit its config.

    The tensors are copied as float32, so that a file from which they are mapped may be deleted.

    Args:
        config: The sizes.
        tensors: By the names of `layout`, the system that saved them.
        layout: `OURS` for tensors of `save_model`.
        source: The file, for messages.

    Raises:
        ValueError: Tensors are missing, unexpected, of another shape, or not finite.
    """
    _require_sizes(sizes_in(tensors, layout, source=source), config, source=source)
    try:
        with torch.device("meta"):
            model = Transformer(config)
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"the config of {source} describes no model: {error}") from None
    expected = {
        layout.theirs(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is unexpected" for name in tensors if name not in expected]
    problems += [
        f"{name} is {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if problems:
        raise ValueError(
            f"{source} does not fit its config: {list_names(problems, limit=8)}; take the config "
            "and all weights of the same model from its source"
        )
    weights = {name: tensors[layout.theirs(name)].detach() for name in model.state_dict()}
    require_finite(weights, source=source)
    copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in weights.items()}
    model.load_state_dict(copies, assign=True)
    return model.eval()


def sizes_in(tensors: Mapping[str, Tensor], layout: Layout, *, source: str) -> dict[str, int]:
    """Return the sizes that the tensors show: fields of `ModelConfig`, and `kv_dim`."""
    embedding, key, up = names = [
        layout.theirs("token_embedding.weight"),
        layout.theirs("blocks.0.attention.key.weight"),
        layout.theirs("blocks.0.feed_forward.up.weight"),
    ]
    shapes = {name: tuple(tensors[name].shape) for name in names if name in tensors}
    if len(shapes.get(up, ())) == 3:
        shapes[up] = shapes[up][1:]  # a stack of experts, (E, ffn_dim, C)
    bad = [name for name in names if len(shapes.get(name, ())) != 2 or 0 in shapes[name]]
    if bad:
        raise ValueError(
            f"{source} is no state dict of {layout.system}: among its {len(tensors)} "
            f"tensors there is no matrix {list_names(bad)}; take the file that its trainer saved"
        )
    numbers = (re.match(rf"{re.escape(layout.blocks)}\.(\d+)\.", name) for name in tensors)
    return {
        "vocab_size": shapes[embedding][0],
        "embedding_dim": shapes[embedding][1],
        "num_layers": len({number[1] for number in numbers if number}),
        "ffn_dim": shapes[up][0],
        "kv_dim": shapes[key][0],
    }


def without_output(
    tensors: Mapping[str, Tensor], layout: Layout, *, source: str
) -> dict[str, Tensor]:
    """Return the tensors without the output matrix, which must equal the embedding."""
    names = output, embedding = [
        layout.theirs(name) for name in ("output_weight", "token_embedding.weight")
    ]
    first, second = (tensors.get(name) for name in names)
    if (
        first is None
        or second is None
        or (first.shape, first.dtype) != (second.shape, second.dtype)
        or (first.data_ptr() != second.data_ptr() and not torch.equal(first, second))
    ):
        raise ValueError(
            f"{source}: {output} is not the same matrix as {embedding}, which {layout.system} "
            "ties; take the file that its trainer saved"
        )
    return {name: tensor for name, tensor in tensors.items() if name != output}


def require_finite(tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Raise a `ValueError` that names the first tensor that is not of finite numbers."""
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() and bool(tensor.isfinite().all())):
            raise ValueError(
                f"{source}: {name} holds NaN, infinity or no floating-point numbers; take an "
                "earlier checkpoint or another copy"
            )


def _require_sizes(shown: Mapping[str, int], config: ModelConfig, *, source: str) -> None:
    """Refuse a file with other sizes than its config, before a damaged config allocates memory."""
    wanted = {**asdict(config), "kv_dim": config.kv_dim}
    different = [
        f"{name} is {size} in the file and {wanted[name]} in the config"
        for name, size in shown.items()
        if size != wanted[name]
    ]
    if different:
        raise ValueError(
            f"{source} does not fit its config: {', '.join(different)} ({config.num_heads} query "
            f"and {config.num_kv_heads} key-value heads); take the config of these weights; for a "
            "checkpoint without one give --num-heads and --num-kv-heads, or pass config="
        )

"""The same training step twice: the trainer's own, and `transformers`' Mistral in a plain loop.

Both get the same batches, the same groups of parameters, fused AdamW, clipping, and precision. The
peer is the same architecture (grouped heads, window, SwiGLU, RMSNorm, tied embeddings) with random
weights of its own, and can be compiled together with its loss as ours is.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.data.reading.pretraining import Corpus, Mixture, PretrainingData
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime
from dimgpt.training.loss import compiled_loss
from dimgpt.training.micro_batches import take_share
from dimgpt.training.optimizer import build_optimizer
from dimgpt.training.step import Stepper

LossFunction = Callable[[Batch], Tensor]


class Loop:
    """A model that takes optimizer steps in a plain loop."""

    def __init__(
        self, model: nn.Module, loss: LossFunction, config: TrainingConfig, runtime: Runtime
    ) -> None:
        self.model, self.loss, self.config, self.runtime = model, loss, config, runtime
        self.optimizer = build_optimizer(model, config)

    def accumulate(self, batches: list[Batch]) -> None:
        """Add up the gradient of a step, micro-batch by micro-batch."""
        num_tokens = sum(batch.inputs.numel() for batch in batches)
        for batch in batches:
            with self.runtime.autocast():
                loss = self.loss(batch.to(self.runtime.device))
            (loss / num_tokens).backward()

    def update(self) -> None:
        """Clip, move the weights, drop the gradient."""
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, batches: list[Batch]) -> None:
        """Take one optimizer step."""
        self.accumulate(batches)
        self.update()


class OurLoop(Loop):
    """This package's model and compiled loss, in the steps that the trainer takes."""

    def __init__(self, model: Transformer, config: TrainingConfig, runtime: Runtime) -> None:
        sums = compiled_loss(model, config, runtime)
        super().__init__(model, lambda batch: sums(batch).loss, config, runtime)
        self.stepper = Stepper(model, self.optimizer, sums, config, runtime=runtime)
        self.num_steps = 0

    def step(self, batches: list[Batch]) -> None:
        """Take one optimizer step, without reading its values."""
        self.num_steps += 1
        rows = take_share(batches, self.runtime)
        self.stepper.take(self.num_steps, rows, should_stop=lambda: False)


def our_loop(model_config: ModelConfig, config: TrainingConfig, runtime: Runtime) -> OurLoop:
    """Return this package's side, with weights of the seed 0."""
    torch.manual_seed(0)
    return OurLoop(Transformer(model_config).to(runtime.device), config, runtime)


def peer_loop(
    model_config: ModelConfig, config: TrainingConfig, runtime: Runtime, *, is_compiled: bool
) -> Loop:
    """Return Mistral of the same size with SDPA, its fastest attention without more packages."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    window = model_config.window_size
    model: Any = MistralForCausalLM(
        MistralConfig(
            vocab_size=model_config.vocab_size,
            hidden_size=model_config.embedding_dim,
            intermediate_size=model_config.ffn_dim,
            num_hidden_layers=model_config.num_layers,
            num_attention_heads=model_config.num_heads,
            num_key_value_heads=model_config.num_kv_heads,
            head_dim=model_config.head_dim,
            max_position_embeddings=model_config.context_length,
            rms_norm_eps=model_config.norm_eps,
            sliding_window=None if window is None else window + 1,
            tie_word_embeddings=True,
            use_cache=False,
            attn_implementation="sdpa",
        )
    ).to(runtime.device)

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        logits = model(input_ids=inputs).logits
        return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="sum")

    compute = torch.compile(loss, dynamic=False) if is_compiled else loss
    return Loop(model, lambda batch: compute(batch.inputs, batch.targets), config, runtime)


def random_batches(
    model_config: ModelConfig, config: TrainingConfig, runtime: Runtime, *, step: int = 1
) -> list[Batch]:
    """Draw the batches of a step from random documents, as pretraining does; pinned for a GPU."""
    batches = random_data(model_config, config).batches(step)
    is_cuda = runtime.device.type == "cuda"
    return [batch.pin_memory() for batch in batches] if is_cuda else batches


def random_data(model_config: ModelConfig, config: TrainingConfig) -> PretrainingData:
    """Return the reader of pretraining over 20 million random tokens in documents of 500."""
    ids = np.random.default_rng(0).integers(model_config.vocab_size, size=20_000_000)
    offsets = np.arange(0, len(ids) + 1, 500)
    file: Any = SimpleNamespace(
        parts=(ids.astype(np.uint16 if model_config.vocab_size <= 2**16 else np.uint32),),
        offsets=offsets,
        num_tokens=len(ids),
        num_documents=len(offsets) - 1,
    )
    mixture = Mixture(files=(file,), ratios=np.ones(1))
    return PretrainingData(
        Corpus(sources=(), train=mixture, validation=mixture),
        context_length=model_config.context_length,
        batch_size=config.batch_size,
        accumulation_steps=config.accumulation_steps,
        seed=0,
    )

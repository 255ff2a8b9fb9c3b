"""The loss of a batch, as sums: the caller adds up its batches and divides at the end."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dimgpt.compilation import compiled
from dimgpt.config import TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.model.experts import choose_experts
from dimgpt.model.fused_attention import activate_newest_flash_attention
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import Runtime, available_memory
from dimgpt.training.sharding import is_sharded

_BYTES_PER_LOGIT = 2 + 2 + 4
_MAX_CHUNKS = 32
_CPU_CHUNK_BYTES = 32 * 2**20  # logits: with fewer rows products are slower, more leave the caches


class LossSums(NamedTuple):
    """Sums over the tokens of a batch, scalars on the device."""

    loss: Tensor
    """Weighted cross-entropy, in nats."""
    correct: Tensor
    """Weight of the tokens that the model finds most probable."""


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> LossSums:
    """Compare logits (B, T, V) with targets (B, T), int64, under weights (B, T), float32."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    with torch.no_grad():
        correct = ((logits.argmax(dim=-1) == targets) * weights).sum()
    return LossSums((losses * weights.flatten()).sum(), correct)


def chunked_cross_entropy(
    model: Transformer, hidden: Tensor, targets: Tensor, weights: Tensor, *, num_chunks: int
) -> LossSums:
    """Compute the same from hidden states (B, T, C), a share of the logits at a time.

    The gradient of a chunk is computed right after its logits, so that no more than those of one
    chunk are ever in memory, and nothing is computed twice.
    """
    rows = [x.flatten(0, 1) for x in (hidden, targets, weights)]
    if torch.is_grad_enabled():
        matrix, bias = model.output_matrix, model.output_bias
        cap = model.config.logit_cap
        loss, correct = _ChunkedCrossEntropy.apply(matrix, bias, *rows, num_chunks, cap)
        return LossSums(loss, correct)
    chunks = zip(*(x[None].tensor_split(num_chunks, dim=1) for x in rows), strict=True)
    parts = [weighted_cross_entropy(model.logits(h), t, w) for h, t, w in chunks]
    loss, correct = (torch.stack(values).sum() for values in zip(*parts, strict=True))
    return LossSums(loss, correct)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Output layer and loss in one, over N tokens: the forward pass leaves the gradients behind."""

    @staticmethod
    def forward(
        ctx: Any,
        matrix: Tensor,
        bias: Tensor | None,
        hidden: Tensor,
        targets: Tensor,
        weights: Tensor,
        num_chunks: int,
        cap: float | None,
    ) -> tuple[Tensor, Tensor]:
        loss = correct = torch.zeros((), device=hidden.device)
        grad_matrix = torch.zeros_like(matrix) if matrix.requires_grad else None
        grad_bias = None if bias is None else torch.zeros_like(bias)
        grads_hidden = []
        chunks = zip(*(x.tensor_split(num_chunks) for x in (hidden, targets, weights)), strict=True)
        for states, ids, weight in chunks:
            logits = F.linear(states, matrix, bias).float()  # (n, V)
            if cap is not None:
                shares = torch.tanh(logits / cap)  # of the cap
                logits, slopes = shares * cap, 1 - shares.square()
            correct = correct + ((logits.argmax(dim=-1) == ids) * weight).sum()
            largest = logits.amax(dim=-1, keepdim=True)
            chosen = logits.gather(1, ids[:, None]) - largest
            exponentials = logits.sub_(largest).exp_()
            total = exponentials.sum(dim=-1, keepdim=True)
            loss = loss + ((total.log() - chosen)[:, 0] * weight).sum()
            # The gradient of the logits: probabilities, less 1 at the target, times the weight.
            grad = exponentials.mul_(weight[:, None] / total)
            grad.scatter_add_(1, ids[:, None], -weight[:, None])
            if cap is not None:
                grad *= slopes
            grads_hidden.append((grad @ matrix).type_as(hidden))
            if grad_matrix is not None:  # below adapters it is frozen
                grad_matrix += grad.T @ states
            if grad_bias is not None:
                grad_bias += grad.sum(dim=0)
        ctx.save_for_backward(grad_matrix, grad_bias, torch.cat(grads_hidden))
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, grad_correct: Tensor) -> Any:
        grads = [None if g is None else g * grad_loss for g in ctx.saved_tensors]
        return (*grads, None, None, None, None)


def answer_log_probabilities(model: Transformer, batch: Batch) -> Tensor:
    """Return the log-probability of each answer of pairs, in nats, float32 (B, 2).

    Logits are computed of the answers' tokens only, those with a weight.
    """
    is_said = batch.weights > 0  # (B, 2, T)
    hidden = model.hidden_states(batch.inputs.flatten(0, 1)).unflatten(0, is_said.shape[:2])
    logits = model.logits(hidden[is_said]).float()
    losses = F.cross_entropy(logits, batch.targets[is_said], reduction="none")
    return -torch.zeros_like(batch.weights).masked_scatter(is_said, losses).sum(dim=-1)


def preference_loss(model: Transformer, batch: Batch, *, beta: float) -> LossSums:
    """Compare pairs of answers: DPO, Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, eq. 7.

    What it shows as correct are the pairs whose better answer has gained more than the other one
    since the run began. Routers of experts get no loss of their own.
    """
    assert batch.reference is not None
    better, worse = (answer_log_probabilities(model, batch) - batch.reference).unbind(dim=1)
    weights = batch.weights.sum(dim=(1, 2))  # 1 for a pair, 0 where it fills up a share
    losses = F.softplus(-beta * (better - worse))
    return LossSums((losses * weights).sum(), ((better > worse) * weights).sum())


def router_losses(
    routing: Sequence[Tensor], weights: Tensor, *, experts_per_token: int
) -> tuple[Tensor, Tensor]:
    """Return the balance loss and the z-loss, as weighted sums over the tokens and the layers.

    The balance loss of a token is E * sum(f_i * p_i), where f_i is the share of expert i in the
    choices, and p_i its mean probability: Fedus et al. 2021, https://arxiv.org/abs/2101.03961,
    eq. 4. It is 1 if all experts are equal, and at most E / K. Shares and means are those of the
    token's sequence, as in DeepSeek-V3, https://arxiv.org/abs/2412.19437, eq. 17, so that the loss
    does not depend on how a step is divided into micro-batches. The z-loss of a token is the square
    of log(sum(exp(logits))): Zoph et al. 2022, https://arxiv.org/abs/2202.08906.

    Args:
        routing: Logits of each layer's router, (B, T, E), float32.
        weights: Of the tokens, (B, T); those of weight 0, such as padding, count in neither loss.
        experts_per_token: K.
    """
    row_weights = weights.sum(dim=1)  # (B,)
    shares = (weights / row_weights.clamp(min=1e-20)[:, None])[..., None]  # (B, T, 1)
    balance = z_loss = weights.new_zeros(())
    for logits in routing:
        num_experts = logits.shape[-1]
        _, chosen = choose_experts(logits, experts_per_token)
        choices = torch.zeros_like(logits).scatter(-1, chosen, 1 / experts_per_token)
        load = (shares * choices).sum(dim=1)  # (B, E)
        probability = (shares * logits.softmax(dim=-1)).sum(dim=1)
        balance = balance + (row_weights * num_experts * (load * probability).sum(dim=-1)).sum()
        z_loss = z_loss + (weights * logits.logsumexp(dim=-1).square()).sum()
    return balance, z_loss


def choose_loss_chunks(*, num_tokens: int, vocab_size: int, free_bytes: int) -> int:
    """Return how many chunks a GPU cuts the logits of a micro-batch into: 1 if memory is plenty.

    Logits and their gradient, in half precision and once in float32, should not take more than a
    quarter of the memory; if they would, each chunk takes a sixteenth.
    """
    num_bytes = num_tokens * vocab_size * _BYTES_PER_LOGIT
    if num_bytes <= free_bytes / 4:
        return 1
    return min(math.ceil(16 * num_bytes / max(free_bytes, 1)), _MAX_CHUNKS)


def _fitting_loss_chunks(model: Transformer, config: TrainingConfig, runtime: Runtime) -> int:
    num_tokens = config.batch_size * model.config.context_length
    vocab_size = model.config.vocab_size
    if runtime.device.type == "cpu":  # not by what is free: a run repeats bit for bit there
        return min(math.ceil(num_tokens * vocab_size * 4 / _CPU_CHUNK_BYTES), _MAX_CHUNKS)
    return choose_loss_chunks(
        num_tokens=num_tokens, vocab_size=vocab_size, free_bytes=available_memory(runtime)
    )


def uses_compile(config: TrainingConfig, runtime: Runtime) -> bool:
    """Say whether the model is to be compiled."""
    return runtime.device.type == "cuda" if config.use_compile is None else config.use_compile


def compiled_loss(
    model: Transformer, config: TrainingConfig, runtime: Runtime
) -> Callable[[Batch], LossSums]:
    """Return the function from a batch on the device to its loss, compiled if the config says so.

    The loss is compiled together with the model: its passes over (B, T, V) then become one. That of
    preferences is not compiled: its rows are as long as the longest of a step.
    """
    num_chunks = config.loss_chunks or _fitting_loss_chunks(model, config, runtime)

    def sums(
        inputs: Tensor, targets: Tensor, weights: Tensor, documents: Tensor | None
    ) -> LossSums:
        hidden, routing = model.hidden_states_and_routing(inputs, documents=documents)
        if num_chunks == 1:
            loss, correct = weighted_cross_entropy(model.logits(hidden), targets, weights)
        else:
            loss, correct = chunked_cross_entropy(
                model, hidden, targets, weights, num_chunks=num_chunks
            )
        if routing and torch.is_grad_enabled():
            per_token = model.config.experts_per_token
            balance, z_loss = router_losses(routing, weights, experts_per_token=per_token)
            more = config.router_balance_loss * balance + config.router_z_loss * z_loss
            # Adds the gradient and a value of 0: what is shown stays the cross-entropy.
            loss = loss + (more - more.detach())
        return LossSums(loss, correct)

    activate_newest_flash_attention(runtime.device)
    # The blocks of a sharded model are compiled one by one; see `sharding.py`.
    is_whole = uses_compile(config, runtime) and not is_sharded(config, runtime)
    compute = compiled(sums, dynamic=False) if is_whole else sums

    def loss(batch: Batch) -> LossSums:
        if batch.reference is not None:
            return preference_loss(model, batch, beta=config.dpo_beta)
        return compute(batch.inputs, batch.targets, batch.weights, batch.documents)

    return loss

"""The loss of preferences."""

import dataclasses

import pytest
import torch

from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.data.reading.batch import Batch
from dimgpt.model.transformer import Transformer
from dimgpt.runtime import choose_runtime
from dimgpt.training.loss import answer_log_probabilities, compiled_loss
from dimgpt.training.micro_batches import cut, share_of, take_share

CPU = choose_runtime("fp32", "cpu")
MODEL = ModelConfig(
    vocab_size=50,
    context_length=16,
    window_size=8,
    embedding_dim=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    ffn_dim=24,
)


def make_pairs(num_pairs=5, seed=0):
    """Return random pairs whose answers begin anywhere, of any length."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(50, (num_pairs, 2, 13), generator=generator)
    said = torch.zeros(num_pairs, 2, 12)
    for pair in range(num_pairs):
        for answer in range(2):
            said[pair, answer, 2 + pair : 5 + pair + answer] = 1
    return Batch(
        inputs=ids[..., :-1],
        targets=ids[..., 1:],
        weights=said / said.sum(dim=(1, 2), keepdim=True),
        reference=-torch.rand(num_pairs, 2, generator=generator) * 20,
    )


def plain_loss(model, batch, beta):
    """DPO as its paper writes it, pair by pair and token by token."""
    losses, gains = [], []
    for pair in range(len(batch.inputs)):
        ratios = []
        for answer in range(2):
            log_probabilities = model(batch.inputs[pair, answer][None])[0].log_softmax(-1)
            total = sum(
                log_probabilities[place, batch.targets[pair, answer, place]]
                for place in range(batch.inputs.shape[-1])
                if batch.weights[pair, answer, place] > 0
            )
            ratios.append(total - batch.reference[pair, answer])
        losses.append(-torch.log(torch.sigmoid(beta * (ratios[0] - ratios[1]))))
        gains.append(float(ratios[0] > ratios[1]))
    return torch.stack(losses), gains


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Transformer(dataclasses.replace(MODEL, init_std=0.3))


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_the_loss_and_its_gradient_are_those_of_the_paper(model, beta):
    batch = make_pairs()
    sums = compiled_loss(model, TrainingConfig(dpo_beta=beta), CPU)(batch)
    losses, gains = plain_loss(model, batch, beta)
    torch.testing.assert_close(sums.loss, losses.sum(), atol=1e-5, rtol=1e-5)
    assert float(sums.correct) == pytest.approx(sum(gains), abs=1e-5)
    parameters = list(model.parameters())
    actual = torch.autograd.grad(sums.loss, parameters)
    for found, wanted in zip(actual, torch.autograd.grad(losses.sum(), parameters), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_at_the_start_of_a_run_the_loss_is_the_logarithm_of_2(model):
    batch = make_pairs()
    with torch.no_grad():
        reference = answer_log_probabilities(model, batch)
        start = dataclasses.replace(batch, reference=reference)
        loss = compiled_loss(model, TrainingConfig(), CPU)(start).loss
    assert float(loss) / 5 == pytest.approx(torch.log(torch.tensor(2.0)).item(), abs=1e-6)


def test_a_pair_is_never_divided_and_counts_once(model):
    loss = compiled_loss(model, TrainingConfig(), CPU)
    batches = [make_pairs(3, seed=1), make_pairs(2, seed=2)]
    whole = sum(float(loss(batch).loss.detach()) for batch in batches)
    assert take_share(batches, CPU).weight == pytest.approx(5)
    assert sum(float(loss(piece).loss.detach()) for piece in cut(batches, 1)) == pytest.approx(
        whole
    )
    ranks = [dataclasses.replace(CPU, rank=rank, num_processes=2) for rank in range(2)]
    shares = [share_of(batches, runtime) for runtime in ranks]  # 5 pairs and one that fills up
    assert [sum(len(piece.inputs) for piece in share) for share in shares] == [3, 3]
    found = sum(float(loss(piece).loss.detach()) for share in shares for piece in share)
    assert found == pytest.approx(whole)
    weight = sum(float(piece.weights.sum()) for share in shares for piece in share)
    assert weight == pytest.approx(5)

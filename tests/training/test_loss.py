"""The loss of a batch."""

import torch

from dimgpt.training.loss import weighted_cross_entropy


def test_it_is_the_weighted_sum_of_log_probabilities():
    logits = torch.randn(2, 3, 5)
    targets = torch.tensor([[0, 1, 2], [3, 4, 0]])
    weights = torch.tensor([[1.0, 0.1, 0.0], [1.0, 1.0, 0.5]])
    sums = weighted_cross_entropy(logits, targets, weights)
    chosen = logits.log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    torch.testing.assert_close(sums.loss, -(chosen * weights).sum())
    right = (logits.argmax(-1) == targets) * weights
    torch.testing.assert_close(sums.correct, right.sum())


def test_a_token_of_weight_0_has_no_gradient():
    logits = torch.randn(1, 2, 5, requires_grad=True)
    weights = torch.tensor([[1.0, 0.0]])
    weighted_cross_entropy(logits, torch.tensor([[1, 2]]), weights).loss.backward()
    assert logits.grad[0, 0].abs().sum() > 0
    assert logits.grad[0, 1].abs().sum() == 0

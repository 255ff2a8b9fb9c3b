"""How a step is cut into pieces; `tests/faults/test_memory.py` lets memory run out."""

import pytest
import torch

from dimgpt.training.micro_batches import cut


@pytest.mark.slow
def test_other_errors_are_not_taken_for_memory(config, make_trainer):
    trainer = make_trainer(config)
    trainer.stepper.loss_sums = lambda batch: torch.ones(2) @ torch.ones(3)
    with pytest.raises(RuntimeError, match="size"):
        trainer.fit()


def test_rows_keep_their_order_and_none_is_lost(config, make_trainer):
    batches = make_trainer(config).data.batches(1)
    whole = torch.cat([batch.inputs for batch in batches])
    for num_rows in (1, 3, 4, 9, None):
        pieces = cut(batches, num_rows)
        assert torch.equal(torch.cat([piece.inputs for piece in pieces]), whole)
        assert all(len(piece.inputs) <= (num_rows or 4) for piece in pieces)

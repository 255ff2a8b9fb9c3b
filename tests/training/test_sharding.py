"""A sharded model is compiled block by block, and computes what it did."""

import dataclasses

import pytest
import torch

from dimgpt.training import sharding


@pytest.mark.parametrize(
    "parts", [{}, {"num_experts": 4}, {"use_value_embeddings": True, "use_stream_scalars": True}]
)
def test_compiled_blocks_compute_what_they_did(config, make_trainer, monkeypatch, parts):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    shape = dataclasses.replace(make_trainer(config).model.config, **parts)
    model, ids = make_trainer(config, folder="other", model=shape).model.eval(), torch.arange(8)
    expected = model(ids[None])
    for block in model.blocks:
        sharding._compile(block)
    assert torch.equal(model(ids[None]), expected)
    cache = model.new_cache(1)
    model(ids[None, :5], cache)
    torch.testing.assert_close(model(ids[None, 5:], cache), expected[:, 5:])

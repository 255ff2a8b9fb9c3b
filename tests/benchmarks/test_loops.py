"""Both sides of the benchmark of training compute the same."""

import dataclasses

import pytest
import torch

from benchmarks.speed.loops import our_loop, peer_loop, random_batches
from dimgpt.config import ModelConfig, TrainingConfig
from dimgpt.model.flops import num_parameters
from dimgpt.runtime import choose_runtime

pytestmark = pytest.mark.slow

CPU = choose_runtime("fp32", "cpu")
MODEL = ModelConfig(
    vocab_size=60,
    context_length=24,
    window_size=6,
    embedding_dim=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    ffn_dim=43,
)
CONFIG = TrainingConfig(batch_size=2, accumulation_steps=2, learning_rate=1e-2, warmup_steps=0)
NAMES = {
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}


def give_weights(ours, peer):
    """Copy our weights to the peer; its rotation pairs channel i with i + D / 2."""
    theirs = peer.model.model
    with torch.no_grad():
        theirs.embed_tokens.weight.copy_(ours.model.token_embedding.weight)
        theirs.norm.weight.copy_(ours.model.final_norm.weight)
        for number, block in enumerate(ours.model.blocks):
            for name, their_name in NAMES.items():
                weight = block.get_submodule(name).weight
                if name in ("attention.query", "attention.key"):
                    pairs = weight.view(-1, MODEL.head_dim // 2, 2, MODEL.embedding_dim)
                    weight = pairs.transpose(1, 2).reshape(weight.shape)
                theirs.layers[number].get_submodule(their_name).weight.copy_(weight)


@pytest.fixture(scope="module")
def loops():
    ours = our_loop(MODEL, CONFIG, CPU)
    peer = peer_loop(MODEL, CONFIG, CPU, is_compiled=False)
    give_weights(ours, peer)
    return ours, peer


def test_the_peer_is_the_same_model_and_trains_the_same(loops):
    ours, peer = loops
    batches = random_batches(MODEL, CONFIG, CPU)
    for _ in range(3):
        losses = [float(loop.loss(batches[0]).detach()) for loop in loops]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        for loop in loops:
            loop.step(batches)
    sizes = [sum(p.numel() for p in loop.model.parameters()) for loop in loops]
    assert sizes == [num_parameters(MODEL)] * 2


def test_a_step_has_the_global_batch_of_the_config():
    for batch_size in (1, 4):
        config = dataclasses.replace(CONFIG, batch_size=batch_size, accumulation_steps=4)
        batches = random_batches(MODEL, config, CPU)
        assert sum(len(batch.inputs) for batch in batches) == 4 * batch_size

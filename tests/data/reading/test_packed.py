"""Rows that hold one conversation each."""

import logging

import numpy as np
import pytest

from dimgpt.config import ConversationSourceConfig, DataConfig
from dimgpt.data.conversation import loss_weights
from dimgpt.data.reading.finetuning import ConversationCorpus, FinetuningData
from dimgpt.text.byte_level import train_byte_level

CHAT = train_byte_level(["user assistant abc"], 272).chat
GROUPS = [ConversationSourceConfig(name=name, path="p", ratio=0.5) for name in ("a", "b")]
CONTEXT, PADDING = 64, 0


def conversation(length):
    """Make one of so many tokens."""
    ids = [*CHAT.encode_message("user", "b"), *CHAT.encode_message("assistant", "")]
    return [*ids[:-1], *[200] * (length - len(ids)), ids[-1]]


def corpus(folder, write_files, lengths):
    for group in GROUPS:
        talk = [conversation(length) for length in lengths]
        write_files(folder / group.name, {"train": talk, "validation": talk}, vocab_size=272)
    return ConversationCorpus.open(folder, GROUPS, "f" * 64)


def data_of(made):
    return FinetuningData(
        made,
        chat=CHAT,
        instruction_weight=0.0,
        packing="pad",
        padding=PADDING,
        context_length=CONTEXT,
        batch_size=3,
        accumulation_steps=4,
        seed=0,
    )


def test_a_row_is_one_conversation_and_padding_without_loss(tmp_path, write_files, caplog):
    with caplog.at_level(logging.INFO):
        data = data_of(corpus(tmp_path, write_files, [40, 50, 63, 64, 90]))
    assert "a: 2 of 5 conversations do not fit into a row and are left out" in caplog.text
    lengths = set()
    for batch in [*data.batches(1), *data.batches(2), *data.validation_batches(2)]:
        for inputs, targets, weights in zip(
            batch.inputs, batch.targets, batch.weights, strict=True
        ):
            row = np.array([inputs[0], *targets])
            length = int(np.flatnonzero(row != PADDING)[-1]) + 1
            lengths.add(length)
            assert row[:length].tolist() == conversation(length)
            expected = loss_weights(conversation(length), CHAT, instruction_weight=0.0)[1:]
            assert ((weights[: length - 1] > 0) == (expected > 0)).all()
            assert not weights[length - 1 :].any()
    assert lengths == {40, 50, 63}


def test_the_loss_of_a_step_is_the_mean_of_the_means_of_its_batches(tmp_path, write_files):
    batches = data_of(corpus(tmp_path, write_files, [40, 63])).batches(1)
    generator = np.random.default_rng(0)
    losses = [generator.random(batch.weights.shape) for batch in batches]
    masks = [batch.weights.numpy() > 0 for batch in batches]
    means = [(loss * mask).sum() / mask.sum() for loss, mask in zip(losses, masks, strict=True)]
    assert len({mask.sum() for mask in masks}) > 1
    weights = [batch.weights.numpy() for batch in batches]
    total = sum((loss * weight).sum() for loss, weight in zip(losses, weights, strict=True))
    step = total / sum(weight.sum() for weight in weights)
    assert step == pytest.approx(np.mean(means), rel=1e-6)


def test_a_group_without_a_short_conversation_is_refused(tmp_path, write_files):
    with pytest.raises(ValueError, match="a has 1 of 1 conversations of 64 tokens or more"):
        data_of(corpus(tmp_path, write_files, [64]))


def test_drawn_system_prompts_in_such_rows_are_refused():
    group = ConversationSourceConfig(
        name="a", path="p", system_prompts_path="p", system_prompt_ratios={"a": 0.5}
    )
    with pytest.raises(
        ValueError, match="packing is 'pad' and system_prompt_ratios or .* are set in a:"
    ):
        DataConfig(conversations=(group,), packing="pad")

"""Rows that hold whole conversations and padding: as many as fit, or one each."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dimgpt.config import ConversationSourceConfig, DataConfig
from dimgpt.data.conversation import loss_weights
from dimgpt.data.reading.finetuning import ConversationCorpus, FinetuningData
from dimgpt.data.reading.packed import pack
from dimgpt.text.byte_level import train_byte_level
from dimgpt.training.micro_batches import cut, share_of

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
    with caplog.at_level(logging.WARNING):
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
    with pytest.raises(ValueError, match="no conversation of a is shorter than the context of 64"):
        data_of(corpus(tmp_path, write_files, [64]))


def test_drawn_system_prompts_in_such_rows_are_refused():
    group = ConversationSourceConfig(
        name="a", path="p", system_prompts_path="p", system_prompt_ratios={"a": 0.5}
    )
    with pytest.raises(
        ValueError, match="packing is 'pad' and system_prompt_ratios or .* are set in a:"
    ):
        DataConfig(conversations=(group,), packing="pad")


LONG, LENGTHS = 128, [24, 27, 31, 36, 41, 55]


def packed(made, **changes):
    settings = {
        "chat": CHAT,
        "instruction_weight": 0.1,
        "packing": "best_fit",
        "padding": PADDING,
        "context_length": LONG,
        "batch_size": 8,
        "accumulation_steps": 2,
        "seed": 0,
    }
    return FinetuningData(made, **(settings | changes))


def documents_of(batch):
    """Yield ids, loss weights and the place in its row of each document and each padding."""
    rows = torch.cat([batch.inputs, batch.targets[:, -1:]], dim=1)
    weights = F.pad(batch.weights, (1, 0))
    for row, row_weights, lengths in zip(rows, weights, batch.documents.tolist(), strict=True):
        assert sum(lengths) == LONG
        end = 0
        for length in lengths:
            begin, end = end, end + length
            if length:
                last = end + (end == LONG)  # the row's last token is a target only
                yield row[begin:last].tolist(), row_weights[begin:last].tolist(), begin


def test_a_packed_row_holds_whole_conversations_with_the_weights_they_have_alone(
    tmp_path, write_files
):
    data = packed(corpus(tmp_path, write_files, LENGTHS))
    found = set()
    for batch in [*data.batches(1), *data.batches(2)]:
        assert batch.documents.dtype == torch.int64
        for ids, weights, _ in documents_of(batch):
            if set(ids) == {PADDING}:
                assert not any(weights)
                continue
            assert ids == conversation(len(ids))
            alone = loss_weights(ids, CHAT, instruction_weight=0.1)
            assert weights == [0, *alone[1:].tolist()]
            found.add(len(ids))
    assert found == set(LENGTHS)


def test_packed_validation_weighs_only_what_the_model_says(tmp_path, write_files):
    (batch,) = packed(corpus(tmp_path, write_files, LENGTHS)).validation_batches(1)
    assert set(batch.weights.unique().tolist()) == {0.0, 1.0}


def test_a_conversation_longer_than_the_row_is_cut_at_its_end(tmp_path, write_files):
    (batch, _) = packed(corpus(tmp_path, write_files, [140])).batches(1)
    whole = conversation(140)
    assert [ids for ids, *_ in documents_of(batch)] == [whole[: LONG + 1]] * 8


@pytest.mark.slow
def test_documents_stay_behind_their_system_prompts(tmp_path, write_files):
    prompt = [250, 251]
    groups = [
        ConversationSourceConfig(
            name="a", path="p", system_prompts_path="p", system_prompt_ratios={"a": 0.5}
        )
    ]
    talk = [conversation(length) for length in LENGTHS]
    files = {"train": talk, "validation": talk, "system_prompts": [prompt]}
    write_files(tmp_path / "a", files, vocab_size=272)
    data = packed(ConversationCorpus.open(tmp_path, groups, "f" * 64), batch_size=100)
    ids = [ids for ids, *_ in documents_of(data.batches(1)[0]) if set(ids) != {PADDING}]
    assert all(one == conversation(len(one)) for one in ids if one[0] != 250)
    prompted = [one for one in ids if one[0] == 250]
    assert all(one == [*prompt, *conversation(len(one) - 2)] for one in prompted)
    assert len(prompted) / len(ids) == pytest.approx(0.5, abs=0.12)


def test_packing_passes_over_no_conversation_that_was_drawn(tmp_path, write_files):
    data = packed(corpus(tmp_path, write_files, LENGTHS))
    reader = data._draw_train.__self__
    rows, places, lengths = reader.arrange(np.random.default_rng(0), 16, LONG + 1)
    generator, expected = np.random.default_rng(0), []
    while len(expected) < len(places):
        expected += reader.draw_documents(generator, 16, by_length=True)[0].tolist()
    assert places.tolist() == expected[: len(places)]
    assert (np.bincount(rows, weights=lengths.sum(axis=1)) <= LONG + 1).all()


@pytest.mark.slow
def test_packed_rows_depend_on_seed_and_step_alone(tmp_path, write_files):
    made = corpus(tmp_path, write_files, LENGTHS)
    whole, divided = packed(made), packed(made, batch_size=1, accumulation_steps=16)
    whole.batches(1)
    for one, other in ((whole.batches(5), divided.batches(5)), (whole.batches(5),) * 2):
        for name in ("inputs", "targets", "weights", "documents"):
            assert torch.equal(*(torch.cat([getattr(b, name) for b in x]) for x in (one, other)))
    assert not torch.equal(whole.batches(5)[0].inputs, whole.batches(6)[0].inputs)


def test_processes_and_smaller_micro_batches_keep_the_documents(tmp_path, write_files):
    data = packed(corpus(tmp_path, write_files, LENGTHS), batch_size=7, accumulation_steps=1)
    (batch,) = data.batches(1)
    runtimes = [SimpleNamespace(rank=rank, num_processes=2) for rank in range(2)]
    shares = [share_of([batch], runtime)[0] for runtime in runtimes]
    assert torch.equal(torch.cat([one.documents for one in shares])[:7], batch.documents)
    pieces = cut([batch], 3)
    assert torch.equal(torch.cat([piece.documents for piece in pieces]), batch.documents)


def test_what_rows_hold_is_told_as_fine_tuning_begins(tmp_path, write_files, caplog):
    made = corpus(tmp_path, write_files, [43])  # three in a row of 129 tokens
    with caplog.at_level(logging.INFO):
        data = packed(made)
        assert data.row_use == "best_fit: conversations take 100.0% of the tokens, padding 0.0%"
        assert packed(made, packing="pad", instruction_weight=0.0).row_use.endswith("padding 66.7%")
        assert packed(made, packing="concatenate").row_use.endswith("padding 0.0%")
    assert caplog.text.count("rows for fine-tuning, ") == 2  # those with padding


def test_prompts_longer_than_a_row_leave_nothing_to_validate_and_are_refused(tmp_path, write_files):
    made = corpus(tmp_path, write_files, LENGTHS)
    with pytest.raises(
        ValueError, match="no validation answer begins within the context of 4 tokens"
    ):
        packed(made, context_length=4)


def test_best_fit_takes_the_row_that_is_left_with_the_least_room():
    assert pack([4, 8, 1, 4, 2, 1], num_rows=2, row_length=10) == [1, 0, 1, 1, 0, 1]
    assert pack([6, 6, 6], num_rows=2, row_length=10) is None
    assert pack([10, 10], num_rows=2, row_length=10) == [0, 1]
    generator = np.random.default_rng(0)
    for _ in range(50):
        lengths = generator.integers(1, 21, 30).tolist()
        rows = pack(lengths, num_rows=40, row_length=20)
        assert np.bincount(rows, weights=lengths).max() <= 20

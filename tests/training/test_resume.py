"""A run goes on, grows, shrinks and branches; `tests/faults/` has runs that are refused."""

import dataclasses
import json
import os
import signal

import pytest
import torch

from dimgpt.training.journal import read_history

pytestmark = pytest.mark.slow


def same(first, second):
    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def steps(trainer, *keys):
    records = [r for r in read_history(trainer.journal.path) if r["kind"] == "step"]
    return [tuple(record[key] for key in keys) for record in records]


def stop_after(step):
    def observe(record):
        if record["kind"] == "step" and record["step"] == step:
            raise KeyboardInterrupt

    return observe


def stopped(make_trainer, config, step, **options):
    trainer = make_trainer(config, observers=[stop_after(step)], **options)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    return trainer


@pytest.mark.parametrize("max_steps", [4, 9])
def test_a_run_that_is_made_longer_or_shorter_takes_the_same_steps(config, make_trainer, max_steps):
    changed = dataclasses.replace(config, max_steps=max_steps)
    whole = make_trainer(changed, folder="whole")
    whole.fit()
    stopped(make_trainer, config, 4)
    seen = []
    resumed = make_trainer(changed, observers=[seen.append])
    resumed.fit()
    assert same(whole, resumed)
    keys = ("step", "tokens", "loss", "learning_rate")
    assert steps(whole, *keys) == steps(resumed, *keys)
    assert seen[0]["changes"] == {"max_steps": f"6 -> {max_steps}"}


def test_a_trainer_that_was_stopped_before_its_first_checkpoint_is_not_begun_again(
    config, make_trainer
):
    config = dataclasses.replace(config, checkpoint_interval=100)
    trainer = stopped(make_trainer, config, 2)
    with pytest.raises(RuntimeError, match="no checkpoint, and the weights .* have changed: build"):
        trainer.fit()
    whole, again = make_trainer(config, folder="whole"), make_trainer(config)
    for each in (whole, again):
        each.fit()
    assert same(whole, again)


def test_a_run_with_muon_goes_on_bit_for_bit(config, make_trainer):
    config = dataclasses.replace(config, optimizer="muon")
    whole = make_trainer(config, folder="whole")
    whole.fit()
    stopped(make_trainer, config, 4)
    resumed = make_trainer(config)
    resumed.fit()
    assert resumed.data.steps_read == [3, 4, 5, 6]
    assert same(whole, resumed)
    assert steps(whole, "loss", "grad_norm") == steps(resumed, "loss", "grad_norm")


@pytest.mark.parametrize("feed_forward", ["swiglu", "relu2"])
def test_a_model_of_all_modern_parts_goes_on_bit_for_bit(config, make_trainer, feed_forward):
    config = dataclasses.replace(
        config, optimizer="muon", muon_weight_decay=0.1, muon_cautious_decay=True
    )
    model = dataclasses.replace(
        make_trainer(config, folder="whole").model.config,
        feed_forward=feed_forward,
        qk_norm=True,
        attention_pattern=("window", "full"),
        scaled_outputs="zero",
        logit_cap=15.0,
        use_stream_scalars=True,
        use_value_embeddings=True,
        tie_embeddings=False,
    )
    whole = make_trainer(config, folder="whole", model=model)
    whole.fit()
    stopped(make_trainer, config, 4, model=model)
    resumed = make_trainer(config, model=model)
    resumed.fit()
    assert same(whole, resumed)


def test_a_run_that_is_already_longer_than_asked_for_takes_no_step(config, make_trainer):
    make_trainer(config).fit()
    shorter = make_trainer(dataclasses.replace(config, max_steps=3))
    assert shorter.fit().step == 6
    assert shorter.data.steps_read == []


def test_another_batch_size_keeps_the_place_in_the_data_and_the_count(config, make_trainer):
    stopped(make_trainer, config, 4)
    larger = make_trainer(dataclasses.replace(config, batch_size=8))
    larger.fit()
    assert larger.data.steps_read == [3, 4, 5, 6]
    tokens = [count for (count,) in steps(larger, "tokens")]
    assert tokens == [128, 256, 512, 768, 1024, 1280]


def test_a_checkpoint_that_knows_less_is_still_read(config, make_trainer):
    trainer = stopped(make_trainer, config, 4)
    loaded = trainer.checkpoints.load_latest()
    state = json.loads(json.dumps(loaded.state))
    for name in ("fingerprints", "num_skipped", "looked_around_at", "num_validations_since_best"):
        del state[name]
    for name in ("schedule", "trackers", "skip_spikes"):
        del state["training"][name]
    state["scaler"] = {}
    trainer.checkpoints.save(dataclasses.replace(loaded, state=state))
    resumed = make_trainer(config, data_fingerprint="aaaa")
    assert resumed.fit().is_finished
    assert resumed.data.steps_read == [3, 4, 5, 6]


def test_a_stop_during_a_validation_loses_neither_step_nor_validation(config, make_trainer):
    whole = make_trainer(config, folder="whole")
    whole.fit()
    first = make_trainer(config)
    real = first.stepper.loss_sums

    def sums(batch):
        if not first.model.training and first.state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return real(batch)

    first.stepper.loss_sums = sums
    assert not first.fit().is_finished
    assert first.state.last_validation == {}
    assert first.checkpoints.load_latest().step == 3
    resumed = make_trainer(config)
    resumed.fit()
    assert same(whole, resumed)
    keys = ("kind", "step", "loss")
    kept = [
        [[r[k] for k in keys] for r in read_history(t.journal.path) if "loss" in r]
        for t in (whole, resumed)
    ]
    assert kept[0] == kept[1]


def test_patience_ends_a_run_and_says_so(config, make_trainer, caplog):
    config = dataclasses.replace(
        config, max_steps=40, learning_rate=1e-9, min_learning_rate=0.0, weight_decay=0.0
    )
    config = dataclasses.replace(config, validation_interval=1, patience=3)
    trainer = make_trainer(config)
    losses = iter([3.0, 2.0, 2.5, 2.1, 2.0, 1.0])
    trainer._measure = lambda should_stop: {"loss": next(losses), "accuracy": 0.5}
    summary = trainer.fit()
    assert summary.step == 5
    assert summary.is_finished
    assert "no validation loss under 2.0000 in the last 3 validations" in caplog.text
    again = make_trainer(config)
    assert again.fit().step == 5
    assert again.data.steps_read == []
    longer = make_trainer(dataclasses.replace(config, patience=None, max_steps=7))
    assert longer.fit().step == 7


def test_a_branch_takes_over_everything_and_leaves_the_trunk_alone(config, make_trainer):
    stable = dataclasses.replace(
        config, schedule="wsd", max_steps=12, decay_steps=4, checkpoint_interval=4
    )
    whole = make_trainer(stable, folder="whole")
    whole.fit()
    trunk = make_trainer(
        dataclasses.replace(stable, max_steps=40, keep_checkpoints=9), folder="trunk"
    )
    trunk.fit()
    before = {path: path.read_bytes() for path in trunk.folder.path.rglob("*") if path.is_file()}
    checkpoint = trunk.checkpoints.folder / "step-00000008"
    branch = make_trainer(stable, folder="branch", branch_from=checkpoint, data_fingerprint="new")
    branch.fit()
    assert branch.data.steps_read == [9, 10, 11, 12]
    assert same(whole, branch)
    assert steps(branch, "step", "loss") == steps(whole, "step", "loss")
    after = {path: path.read_bytes() for path in trunk.folder.path.rglob("*") if path.is_file()}
    assert after == before
    again = make_trainer(stable, folder="branch", branch_from=checkpoint, data_fingerprint="new")
    again.fit()
    assert again.data.steps_read == []


def test_a_branch_of_a_run_begins_at_its_newest_checkpoint(config, make_trainer):
    trunk = make_trainer(config, folder="trunk")
    trunk.fit()
    longer = dataclasses.replace(config, max_steps=8)
    branch = make_trainer(longer, folder="branch", branch_from=trunk.folder.path)
    branch.fit()
    assert branch.data.steps_read == [7, 8]


def test_a_branch_from_nothing_whole_is_refused(config, make_trainer, tmp_path):
    trunk = make_trainer(config, folder="trunk")
    trunk.fit()
    best = next(trunk.checkpoints.folder.glob("best-*"))
    for path, reason in ((best, "no checkpoint with an optimizer"), (tmp_path, "no manifest")):
        with pytest.raises(ValueError, match=reason):
            make_trainer(config, folder="branch", branch_from=path).fit()


def test_what_a_killed_save_left_behind_is_removed(config, make_trainer):
    trainer = stopped(make_trainer, config, 4)
    left = trainer.checkpoints.folder / "step-00000099.dimgpt-new"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"x" * 100)
    make_trainer(config).fit()
    assert not left.exists()


def test_the_recipe_of_a_run_is_kept(config, make_trainer):
    trainer = make_trainer(config, recipe={"name": "é"})
    trainer.fit()
    assert json.loads((trainer.folder.path / "run.json").read_text()) == {"name": "é"}

import pytest

from dimgpt.display.progress import TrainingBar


def start(step=0, max_steps=10, **changes):
    return {"kind": "start", "step": step, "max_steps": max_steps, "changes": changes}


def step(number):
    return {
        "kind": "step",
        "step": number,
        "tokens": 1_024 * number,
        "epochs": number / 64,
        "loss_average": 1.23456,
        "accuracy_average": 0.5,
        "learning_rate": 1e-3,
        "tokens_per_second": 12_345.6,
        "mfu": 0.4,
    }


@pytest.fixture
def bar():
    made = TrainingBar(description="pretraining")
    yield made
    made.close()


def test_nothing_is_shown_before_the_run_starts(bar, capsys):
    bar.close()
    assert capsys.readouterr() == ("", "")


def test_a_step_moves_the_bar_and_shows_its_values(bar, capsys):
    bar(start())
    for number in range(1, 11):
        bar(step(number))
    error = capsys.readouterr().err
    assert "pretraining: 100%" in error
    assert "10/10" in error
    assert "loss 1.235, accuracy 50.0%, rate 1.0e-03, 12,346 tokens/s, MFU 40%" in error
    assert error.endswith("\n")
    assert "epoch 0.1562, 10,240 tokens, loss 1.235" in error


def test_a_run_that_does_not_know_its_corpus_shows_its_tokens(bar, capsys):
    bar(start(max_steps=1))
    record = step(1)
    del record["epochs"]
    bar(record)
    shown = capsys.readouterr().err
    assert "1,024 tokens, loss 1.235" in shown
    assert "epoch" not in shown


def test_a_run_that_goes_on_says_where_and_what_changed(bar, capsys):
    bar(start(step=4, batch_size="2 -> 3"))
    bar(step(5))
    shown = capsys.readouterr()
    assert "resuming at step 4 batch_size 2 -> 3" in shown.out
    assert "4/10" in shown.err


@pytest.mark.parametrize("number", [10, 12])
def test_a_run_that_has_ended_says_that_nothing_is_left(bar, capsys, number):
    bar(start(step=number))
    bar.close()
    shown = capsys.readouterr()
    assert f"at step {number} of 10 already: nothing is left to train" in shown.out
    assert shown.err == ""


def test_a_sample_stands_above_the_bar(bar, capsys):
    bar(start())
    bar({"kind": "sample", "step": 1_000, "text": "Il était"})
    bar({"kind": "validation", "step": 1_000, "loss": 1.0})
    assert "step 1,000: Il était" in capsys.readouterr().out


def test_a_run_that_stops_early_leaves_a_line_of_its_own(bar, capsys):
    bar(start())
    bar(step(3))
    bar.close()
    assert capsys.readouterr().err.endswith("\n")


def test_the_last_validation_and_the_skipped_updates_are_shown(bar, capsys):
    bar(start())
    bar({"kind": "validation", "loss": 2.3, "accuracy": 0.31, "bits_per_byte": 1.2345})
    for number in range(1, 11):
        bar(step(number) | {"num_skipped": 2})
    shown = capsys.readouterr().err
    assert ", 2 skipped, validation 2.300, 31.0%, 1.234 bits/byte" in shown


def test_a_run_whose_first_steps_were_skipped_is_shown(bar, capsys):
    bar(start(max_steps=1))
    bar(step(1) | {"loss_average": None, "accuracy_average": None, "num_skipped": 1})
    assert "1 skipped" in capsys.readouterr().err

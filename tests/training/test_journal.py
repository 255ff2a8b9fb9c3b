import json

import pytest

from dimgpt.runtime import choose_runtime
from dimgpt.training import journal
from dimgpt.training.guard import Verdict
from dimgpt.training.journal import Journal, read_history
from dimgpt.training.run_state import RunState
from dimgpt.training.step import StepResult


def make_journal(path):
    runtime = choose_runtime("fp32", "cpu")
    return Journal(path / "history.jsonl", [], flops_per_token=1.0, runtime=runtime, decay=0.9)


def result(step, *, loss, accuracy, verdict=Verdict.FINE):
    return StepResult(
        step=step,
        num_tokens=8,
        learning_rate=0.1,
        loss=loss,
        accuracy=accuracy,
        grad_norm=1.0,
        verdict=verdict,
    )


def test_the_first_value_of_an_average_counts_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "peak_flops", lambda runtime: 1e12)
    made = make_journal(tmp_path)
    made.start(max_steps=2, changes={})
    made.record_step(result(1, loss=10.0, accuracy=1.0))
    first = dict(made.state.averages)
    made.record_step(result(2, loss=0.0, accuracy=1.0))
    made.record_step(result(3, loss=float("nan"), accuracy=0.0, verdict=Verdict.NOT_FINITE))
    second = made.state.averages
    assert (first["loss"], first["accuracy"]) == (10.0, 1.0)
    assert (second["loss"], second["accuracy"]) == pytest.approx((9.0, 1.0))


def test_what_is_appended_is_read(tmp_path):
    history = make_journal(tmp_path / "run")
    records = [
        {"kind": "start", "step": 0},
        {"kind": "sample", "step": 1, "text": 'é\u2028\x85 "x"\n🙂'},
        {"kind": "step", "step": 2, "loss": 0.1},
    ]
    for record in records:
        history.append(record)
    assert read_history(history.path) == records


def test_a_rewind_drops_what_comes_after_a_step_and_a_cut_line(tmp_path):
    history = make_journal(tmp_path)
    for number in range(4):
        history.append({"step": number, "text": "a\u2028b"})
    with history.path.open("ab") as file:
        file.write('{"step": 2, "text": "é'.encode()[:-1])
    history.follow(RunState(step=2))
    history.append({"step": 9})
    assert [record["step"] for record in read_history(history.path)] == [0, 1, 2, 9]
    assert all(json.loads(line) for line in history.path.read_bytes().split(b"\n")[:-1])


def test_a_rewind_of_nothing_makes_nothing(tmp_path):
    make_journal(tmp_path).follow(RunState())
    assert list(tmp_path.iterdir()) == []


def test_the_time_of_a_run_goes_on_from_the_sittings_before(tmp_path):
    made = make_journal(tmp_path)
    made.follow(RunState(seconds=100.0))
    assert 100 < made.seconds < 101


def test_on_a_full_disk_records_wait_and_are_written_later(tmp_path, monkeypatch, caplog):
    history = make_journal(tmp_path)
    history.append({"step": 0})
    real = journal._append_whole

    def fail(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "_append_whole", fail)
    history.append({"step": 1})
    history.append({"step": 2})
    assert [record["step"] for record in read_history(history.path)] == [0]
    assert caplog.text.count("its records stay in memory") == 1
    monkeypatch.setattr(journal, "_append_whole", real)
    history.append({"step": 3})
    assert [record["step"] for record in read_history(history.path)] == [0, 1, 2, 3]

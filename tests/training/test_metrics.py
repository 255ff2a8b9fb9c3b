import json

import pytest

from dimgpt.training import metrics
from dimgpt.training.metrics import History, MovingAverages, Stopwatch, read_history


def test_the_first_value_of_an_average_counts_as_it_is():
    averages = MovingAverages(decay=0.9)
    averages.update(loss=10.0)
    assert averages.values == {"loss": 10.0}
    averages.update(loss=0.0, accuracy=1.0)
    assert averages.values == pytest.approx({"loss": 9.0, "accuracy": 1.0})


def test_what_is_appended_is_read(tmp_path):
    history = History(tmp_path / "run" / "history.jsonl")
    records = [
        {"kind": "start", "step": 0},
        {"kind": "sample", "step": 1, "text": 'é\u2028\x85 "x"\n🙂'},
        {"kind": "step", "step": 2, "loss": 0.1},
    ]
    for record in records:
        history.append(record)
    assert read_history(history.path) == records


def test_a_rewind_drops_what_comes_after_a_step_and_a_cut_line(tmp_path):
    history = History(tmp_path / "history.jsonl")
    for number in range(4):
        history.append({"step": number, "text": "a\u2028b"})
    with history.path.open("ab") as file:
        file.write('{"step": 2, "text": "é'.encode()[:-1])
    history.rewind(2)
    history.append({"step": 9})
    assert [record["step"] for record in read_history(history.path)] == [0, 1, 2, 9]
    assert all(json.loads(line) for line in history.path.read_bytes().split(b"\n")[:-1])


def test_a_rewind_of_nothing_makes_nothing(tmp_path):
    History(tmp_path / "history.jsonl").rewind(0)
    assert list(tmp_path.iterdir()) == []


def test_a_stopwatch_goes_on_from_the_sittings_before():
    assert 100 < Stopwatch(before=100.0).seconds < 101


def test_on_a_full_disk_records_wait_and_are_written_later(tmp_path, monkeypatch, caplog):
    history = History(tmp_path / "history.jsonl")
    history.append({"step": 0})
    real = metrics._append_whole

    def fail(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(metrics, "_append_whole", fail)
    history.append({"step": 1})
    history.append({"step": 2})
    assert [record["step"] for record in read_history(history.path)] == [0]
    assert caplog.text.count("its records wait in memory") == 1
    monkeypatch.setattr(metrics, "_append_whole", real)
    history.append({"step": 3})
    assert [record["step"] for record in read_history(history.path)] == [0, 1, 2, 3]

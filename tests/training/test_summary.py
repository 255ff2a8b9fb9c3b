from dimgpt.training.run_state import TrainingSummary

FINISHED = TrainingSummary(
    step=1_600,
    tokens=13_107_200,
    flops=1.234e15,
    seconds=3_661.4,
    loss=2.34567,
    accuracy=0.4567,
    validation_loss=2.5,
    validation_accuracy=0.44,
    bits_per_byte=1.0,
    is_finished=True,
)


def test_a_finished_run_shows_all_it_reached():
    assert FINISHED.rows() == {
        "Tokens": "13,107,200",
        "Steps": "1,600",
        "FLOPs": "1.23e+15",
        "Duration": "1 h 01 min 01 s",
        "Final loss": "2.346",
        "Final accuracy": "45.7%",
        "Validation loss": "2.500",
        "Validation accuracy": "44.0%",
        "Validation bits per byte": "1.000",
    }


def test_an_interrupted_run_says_so_and_leaves_out_what_was_not_measured():
    summary = TrainingSummary(
        step=3,
        tokens=6,
        flops=1.0,
        seconds=0.4,
        loss=1.0,
        accuracy=0.0,
        validation_loss=None,
        validation_accuracy=None,
        bits_per_byte=None,
        is_finished=False,
    )
    rows = summary.rows()
    assert rows["Steps"] == "3 (interrupted)"
    assert rows["Duration"] == "0 h 00 min 00 s"
    assert not any(name.startswith("Validation") for name in rows)

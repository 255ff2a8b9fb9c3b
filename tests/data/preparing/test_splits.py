import numpy as np
import pytest

from dimgpt.data.preparing.splits import NUM_KEYS, Borders


def keys(count=10_000):
    return np.random.default_rng(0).integers(NUM_KEYS, size=count, dtype=np.uint64)


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.0), (0.1, 0.2), (0.0, 0.3), (0.5, 0.5)])
def test_splits_have_their_shares_and_do_not_overlap(validation, test):
    chosen = Borders.of(validation_ratio=validation, test_ratio=test).choose(keys())
    shares = {name: is_chosen.mean() for name, is_chosen in chosen.items()}
    assert sum(chosen.values()).tolist() == [1] * 10_000
    assert ("test" in chosen) == (test > 0)
    assert shares["validation"] == pytest.approx(validation, abs=0.02)
    assert shares.get("test", 0) == pytest.approx(test, abs=0.02)


def test_a_test_split_leaves_the_validation_documents_what_they_were():
    without = Borders.of(validation_ratio=0.1, test_ratio=0.0).choose(keys())
    with_test = Borders.of(validation_ratio=0.1, test_ratio=0.2).choose(keys())
    assert (without["validation"] == with_test["validation"]).all()


@pytest.mark.parametrize("validation", [0.0, 1e-9, 0.5, 1.0])
@pytest.mark.parametrize("test", [0.0, 1e-9, 0.5, 1.0])
@pytest.mark.parametrize("count", [3, 4, 100])
def test_no_split_of_few_documents_stays_empty(validation, test, count):
    if validation + test > 1:
        pytest.skip("more than all")
    some = keys(count)
    borders = Borders.of(validation_ratio=validation, test_ratio=test)
    filling = borders.filling(some)
    assert all(chosen.any() for chosen in filling.choose(some).values())
    if all(chosen.any() for chosen in borders.choose(some).values()):
        assert filling == borders

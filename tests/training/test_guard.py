"""Which updates are spikes; `tests/faults/test_bad_steps.py` puts bad values into runs."""

import math

import torch

from dimgpt.training.guard import UpdateGuard, Verdict

CPU = torch.device("cpu")


def judge(guard, *pairs):
    return [Verdict(int(guard.judge(torch.tensor(a), torch.tensor(b)))) for a, b in pairs]


def test_only_what_is_six_deviations_above_is_a_spike():
    guard = UpdateGuard(CPU, skip_spikes=True)
    calm = [(2.0 + 0.1 * (-1) ** i, 1.0 + 0.1 * (-1) ** i) for i in range(128)]
    assert set(judge(guard, *calm)) == {Verdict.FINE}
    assert judge(guard, (2.59, 1.0), (-9.0, 0.0), (2.0, 1.59)) == [Verdict.FINE] * 3
    assert judge(guard, (9.0, 1.0)) == [Verdict.SPIKE]
    assert judge(guard, (2.0, 9.0)) == [Verdict.SPIKE]
    assert judge(guard, (2.0, math.inf)) == [Verdict.NOT_FINITE]


def test_a_run_gets_used_to_a_level_that_stays():
    guard = UpdateGuard(CPU, skip_spikes=True)
    judge(guard, *[(2.0, 1.0)] * 100)
    verdicts = judge(guard, *[(5.0, 1.0)] * 10)
    assert verdicts[0] == Verdict.SPIKE
    assert verdicts[-1] == Verdict.FINE


def test_nothing_is_a_spike_before_enough_is_known_or_when_nobody_asks():
    guard = UpdateGuard(CPU, skip_spikes=True)
    assert judge(guard, *[(2.0, 1.0)] * 60, (1e6, 1.0))[-1] == Verdict.FINE
    assert judge(UpdateGuard(CPU, skip_spikes=False), *[(2.0, 1.0)] * 99, (1e6, 1.0))[-1] == 0

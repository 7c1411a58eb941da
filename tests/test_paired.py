"""How sure a change of the validation loss is, against scipy's paired t-test."""

import math

import pytest
import torch
from scipy import stats

from objectives.paired import Paired
from tests import toy

LOSSES_EV = torch.randn(6, 50, generator=torch.Generator().manual_seed(0)).exp() + torch.tensor(
    [[3.0], [2.0], [2.5], [1.0], [1.5], [0.5]]
)


def test_error_is_that_of_the_paired_t_test_against_the_best_epoch_before() -> None:
    paired = Paired()
    for epoch, losses in enumerate(LOSSES_EV):
        for _ in range(2):  # measuring again changes nothing
            error = paired.standard_error(losses, loss=losses.mean().item(), n_updates=7 * epoch).item()
            if epoch == 0:
                assert error == 0
            else:
                best = min(LOSSES_EV[:epoch], key=lambda before: before.mean().item())
                told = stats.ttest_rel(losses.double(), best.double())
                assert error == pytest.approx((losses - best).double().mean().item() / told.statistic, rel=1e-5)


def test_a_loss_that_is_not_finite_is_never_the_best() -> None:
    paired, spoilt = Paired(), LOSSES_EV[0].clone()
    spoilt[3] = math.inf
    for epoch, losses in enumerate([spoilt, LOSSES_EV[0], LOSSES_EV[1]]):
        error = paired.standard_error(losses, loss=losses.mean().item(), n_updates=epoch).item()
    assert error == pytest.approx((LOSSES_EV[1] - LOSSES_EV[0]).std().item() / math.sqrt(50), rel=1e-6)


def test_slots_are_compared_with_their_own_best_whoever_else_is_measured() -> None:
    company, alone = toy.population({}), toy.population({})
    for slot in range(3):
        toy.admit(company, slot, {"lr": 1e-2 / (slot + 1)}, seed=slot)
    toy.admit(alone, 0, {"lr": 1e-2 / 2}, seed=1)
    for epoch in range(4):
        told = [company.evaluate([1])[1].metrics, company.evaluate()[1].metrics, alone.evaluate()[0].metrics]
        assert told[0] == pytest.approx(told[1], rel=1e-12)
        assert told[0]["val_loss_se"] == pytest.approx(told[2]["val_loss_se"], rel=1e-8)
        assert (told[0]["val_loss_se"] > 0) == (epoch > 0)
        toy.train(company, epochs=1)
        toy.train(alone, epochs=1)

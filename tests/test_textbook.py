"""The textbook systems that come as studies: their published figures, and plain torch beside them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from search.definition import StudyDefinition, load
from search.state import State, Trial
from search.workspace import Workspace
from tests.running import PROJECT, coordinate

SAME = 1e-5
"""Relative, in float32."""


def study(name: str, **changes: Any) -> StudyDefinition:
    return load(name, Workspace(PROJECT), changes)


def curve(trial: Trial, metric: str = "train_loss") -> list[float]:
    """From the untrained network on."""
    return [report.metrics[metric] for report in trial.reports]


def by_values(state: State, *names: str) -> Mapping[tuple[Any, ...], Trial]:
    return {tuple(trial.hyperparameters[name] for name in names): trial for trial in state.trials.values()}


# ---------------------------------------------------------------- learning rates


def tensors(definition: StudyDefinition, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return torch.tensor(definition.data["x"], dtype=torch.float32), torch.tensor(definition.data["y"], dtype=dtype)


def built(*outputs: int) -> list[nn.Linear]:
    """Linear models of three features, built one after another as the textbook does."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return [nn.Linear(3, n) for n in outputs]


def costs(model: nn.Linear, loss: Any, *, lr: float) -> list[float]:
    """Of 20 epochs, each before its update."""
    optimizer, found = torch.optim.SGD(model.parameters(), lr=lr), []
    for _ in range(20):
        cost = loss(model)
        optimizer.zero_grad()
        cost.backward()
        optimizer.step()
        found.append(cost.item())
    return found


def test_lr_softmax_has_the_published_costs_and_those_of_plain_torch(tmp_path: Path) -> None:
    definition = study("lr_softmax")
    x, y = tensors(definition, torch.int64)
    trials = by_values(coordinate(definition, tmp_path), "lr", "init_skip")
    assert len(trials) == 12
    for (lr, skip), trial in trials.items():
        model = built(3, 3, 3, 3)[skip // 12]
        expected = costs(model, lambda model: functional.cross_entropy(model(x), y), lr=lr)
        assert curve(trial)[:20] == pytest.approx(expected, rel=SAME), (lr, skip)
    for (lr, skip), ends in {
        (1e5, 12): (1.280268, 1971322.625),
        (1e-10, 24): (3.187324, 3.187324),
        (0.1, 36): (1.341573, 0.961836),
    }.items():
        published = curve(trials[lr, skip])
        assert (published[0], published[19]) == pytest.approx(ends, rel=SAME)


def test_lr_linear_has_the_published_costs_and_those_of_plain_torch(tmp_path: Path) -> None:
    definition = study("lr_linear")
    x, y = tensors(definition, torch.float32)
    x = (x - x.mean(dim=0)) / x.std(dim=0)
    trials = by_values(coordinate(definition, tmp_path), "lr")
    for (lr,), trial in trials.items():
        model = built(3, 3, 3, 3, 1)[4]
        expected = costs(model, lambda model: functional.mse_loss(model(x).squeeze(1), y), lr=lr)
        assert curve(trial)[:20] == pytest.approx(expected, rel=SAME), lr
    published = curve(trials[(0.1,)])
    assert (published[0], published[19]) == pytest.approx((29785.09, 6.6337), rel=SAME)


def test_lr_linear_diverges_on_features_as_they_come(tmp_path: Path) -> None:
    trials = by_values(coordinate(study("lr_linear_raw"), tmp_path), "lr")
    diverged, trained = curve(trials[(0.1,)]), curve(trials[(1e-5,)])
    assert diverged[1] > 1e6 * diverged[0]
    assert not math.isfinite(diverged[20])
    assert trained[20] < 0.001 * trained[0]


def test_lr_search_gains_most_of_what_the_best_of_a_fine_grid_does(tmp_path: Path) -> None:
    definition = study("lr_search")
    x, y = tensors(definition, torch.int64)
    state = coordinate(definition, tmp_path)
    best = state.ranked(maximize=False)[0]
    losses = []
    for lr in torch.logspace(-10, 5, 151).tolist():
        model = built(3, 3, 3, 3)[3]
        losses.append(min(costs(model, lambda model: functional.cross_entropy(model(x), y), lr=lr)[1:]))
    assert best.value is not None
    untrained = curve(best)[0]
    assert untrained - best.value > 0.8 * (untrained - min(losses))
    assert 0.02 < float(str(best.hyperparameters["lr"])) < 1.0


# ---------------------------------------------------------------- the smallest objective


def test_thumbtack_falls_flat_27_times_of_100(tmp_path: Path) -> None:
    definition = study("thumbtack")
    best = coordinate(definition, tmp_path).ranked(maximize=False)[0]
    weights = load_file(Workspace(tmp_path).study("thumbtack") / "checkpoints/trial-00000.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) == 1
    assert weights["output.bias"].sigmoid().item() == pytest.approx(0.27, abs=1e-4)
    entropy = -(0.27 * math.log(0.27) + 0.73 * math.log(0.73))
    assert best.value == pytest.approx(entropy, rel=SAME)
    assert curve(best, "val_positive")[-1] == pytest.approx(0.27, abs=1e-4)


# ---------------------------------------------------------------- CIFAR-10

PUBLISHED_CIFAR_MLP: Sequence[tuple[float, float]] = ((0.418, 1.631), (0.451, 1.537), (0.466, 1.495))
"""Accuracy and loss on the test set after epochs 1, 2 and 3."""


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(1800)
def test_cifar_mlp_has_the_published_test_accuracies_and_losses(data_dir: Path, tmp_path: Path) -> None:
    state = coordinate(study("cifar_mlp"), tmp_path, data_dir=data_dir)
    assert state.measured_on == "original_test"
    trial = by_values(state, "l2")[(5e-4,)]
    for epoch, (accuracy, loss) in enumerate(PUBLISHED_CIFAR_MLP, start=1):
        assert len(trial.reports[epoch].replicates) == 5
        assert curve(trial, "val_accuracy")[epoch] == pytest.approx(accuracy, abs=0.02)
        assert curve(trial, "val_loss")[epoch] == pytest.approx(loss, abs=0.08)

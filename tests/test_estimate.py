"""Claims of search/estimate.py: the cost that --dry-run tells is the cost of the study that would run."""

import io
import random
from pathlib import Path

import pytest
from rich.console import Console

from search.definition import StudyDefinition
from search.errors import FingerprintError, TrainerError
from search.estimate import dry_run, expected_epochs, largest_network
from search.session import Settings
from search.workspace import Workspace
from tests.fakes import FakeObjective
from tests.running import TABLE, coordinate, fake_study, faults, files_in


def simulated(definition: StudyDefinition, n_trials: int, rng: random.Random) -> float:
    """Mean epochs of trials of which exactly the best 1 / eta pass each rung."""
    trials = [rng.random() for _ in range(n_trials)]
    epochs, rung, total = definition.pruning.min_epochs, definition.pruning.min_epochs, 0
    done = 0
    while trials:
        target = min(rung, definition.epochs)
        total += len(trials) * (target - done)
        if target == definition.epochs:
            break
        trials = sorted(trials)[-(len(trials) // definition.pruning.eta) :]
        done, rung = target, rung * definition.pruning.eta
    assert epochs >= 1
    return total / n_trials


@pytest.mark.parametrize(("epochs", "eta", "min_epochs"), [(9, 3, 1), (27, 3, 1), (8, 2, 1), (10, 3, 2), (4, 4, 4)])
def test_expected_epochs_are_those_of_a_simulated_halving(epochs: int, eta: int, min_epochs: int) -> None:
    definition = fake_study(epochs=epochs, pruning={"eta": eta, "min_epochs": min_epochs})
    n_trials = eta**4
    assert expected_epochs(definition) == pytest.approx(simulated(definition, n_trials, random.Random(0)))


def test_without_pruning_every_epoch_is_expected() -> None:
    assert expected_epochs(fake_study(epochs=7, pruning={"kind": "none"})) == 7


def test_largest_network_has_every_structural_parameter_at_its_upper_end() -> None:
    largest = largest_network(fake_study(), FakeObjective.HYPERPARAMETERS)
    assert largest == {"quality": 0.6, "drop": 0.0, "shape": TABLE["space"]["shape"]["high"], "fault": "none"}


def dry(root: Path, definition: StudyDefinition) -> str:
    places = Workspace(root)
    settings = Settings(workspace=places, data_dir=root, storage=places.optuna_url, tracking_uri=places.mlflow_url)
    console = Console(file=io.StringIO(), width=200)
    assert dry_run(definition, settings, console) == 0
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_study_that_would_be_refused_is_refused_by_a_dry_run(tmp_path: Path) -> None:
    coordinate(fake_study(n_trials=1), tmp_path)
    before = files_in(tmp_path)
    with pytest.raises(FingerprintError, match="epochs: 9 -> 12"):
        dry(tmp_path, fake_study(n_trials=1, epochs=12))
    assert files_in(tmp_path) == before


def test_network_that_cannot_be_trained_is_told(tmp_path: Path) -> None:
    data = faults({}) | {"faults": {"0": "raise at once"}}  # an estimate trains with seed 0
    with pytest.raises(TrainerError, match="a network of the space cannot be trained here: ValueError"):
        dry(tmp_path, fake_study(data=data))
    assert not files_in(tmp_path)


def test_dry_run_tells_how_many_were_found_to_fit_at_once(tmp_path: Path) -> None:
    assert "2 of its kind at once" in dry(tmp_path, fake_study(data={"capacity": 8, "room": 2}))
    assert not files_in(tmp_path)

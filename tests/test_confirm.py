"""Claims of search.confirm, search.ablate and search.reproduce as commands: real processes, ledger, Optuna and MLflow.

The fake study's `quality` is a regularizer whose being off is worth less: a planted effect, which must be found.
"""

import hashlib
import os
import random
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from search import events
from search.checkpoint import sha256
from search.confirmation import FINAL, SELECT, SWEEP
from search.events import NetworkTested, TrialAsked
from search.mlflow_view import connect
from search.state import State
from search.workspace import Workspace
from tests.histories import put_champion
from tests.running import (
    TABLE,
    begin,
    command,
    coordinate,
    events_of,
    fake_study,
    files_in,
    folded,
    wait_for,
    workplace,
)

PLANTED: dict[str, Any] = {
    "n_trials": 8,
    "epochs": 3,
    "trainers": 1,
    "pruning": {"kind": "none"},
    "baseline": {"quality": 0.5, "drop": 0.0, "shape": 1},
    "space": {
        **TABLE["space"],
        "quality": {"kind": "float", "low": 0.5, "high": 0.9, "regularizer": True, "off": 0.5},
    },
}
N_RUNS = {SELECT: 24, SWEEP: 2, FINAL: 4 * 13}
"""The sweep has one configuration, since the study has no learning rate."""


def confirm(root: Path, *options: str, module: str = "search.confirm") -> str:
    done = command(root, "--study", "fake", *options, module=module)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = workplace(tmp_path_factory.mktemp("searched"), **PLANTED)
    assert command(root, "--study", "fake").returncode == 0
    return root


@pytest.fixture(scope="module")
def confirmed(searched: Path) -> tuple[Path, str]:
    return searched, confirm(searched)


def phase(root: Path, name: str = "confirm-1") -> State:
    return folded(root).phases[name]


def assert_whole(state: State) -> None:
    """Every run finished once, every final network was tested once, and nothing but the final ones."""
    assert Counter(run.stage for run in state.trials.values()) == N_RUNS
    assert len(state.finish_order) == len(set(state.finish_order)) == sum(N_RUNS.values())
    assert {run.outcome for run in state.trials.values()} == {"complete"}
    assert {run.stage for run in state.trials.values() if run.tested is not None} == {FINAL}
    assert sum(run.tested is not None for run in state.trials.values()) == N_RUNS[FINAL]
    assert not [run for run in state.trials.values() if run.checkpoint is not None]


def test_planted_gain_is_confirmed_and_every_run_is_counted_once(confirmed: tuple[Path, str]) -> None:
    root, told = confirmed
    assert "Does regularization help? Confirmed: quality" in told
    assert "Against the baseline: confirmed" in told
    assert "The test set was used once" in told
    assert_whole(phase(root))


def test_use_of_the_test_set_is_in_the_ledger_before_any_network_is_measured_on_it(
    confirmed: tuple[Path, str],
) -> None:
    found = events_of(confirmed[0])
    uses = [at for at, event in enumerate(found) if isinstance(event, events.TestSetUsed)]
    tests = [at for at, event in enumerate(found) if isinstance(event, NetworkTested)]
    assert len(uses) == 1
    assert uses[0] < min(tests)
    assert len(tests) == len({found[at].trial for at in tests}) == N_RUNS[FINAL]  # type: ignore[union-attr]
    last_trained = max(at for at, event in enumerate(found) if isinstance(event, TrialAsked))
    assert last_trained < uses[0]


def test_told_numbers_are_those_of_the_stored_predictions(confirmed: tuple[Path, str]) -> None:
    root, told = confirmed
    state, folder = phase(root), Workspace(root).study("fake") / "confirm-1"
    found: dict[str, list[float]] = {}
    for run in state.trials.values():
        if run.tested is not None:
            path = folder / run.tested.predictions
            assert sha256(path) == run.tested.sha256
            with np.load(path) as stored:
                accuracy = float((stored["outputs"].argmax(1) == stored["targets"]).mean())
            assert accuracy == pytest.approx(run.tested.metrics["test_accuracy"])
            found.setdefault(run.configuration, []).append(accuracy)
    means = {name: np.mean(values) for name, values in found.items()}
    winner = max((name for name in means if name.startswith("trial")), key=lambda name: means[name])
    for name, mean in means.items():
        assert any(f"{mean:.2%}".replace("%", " %") in line and line.endswith(name) for line in told.splitlines())
    gain = means[winner] - means["baseline"]
    assert f"Against the baseline: confirmed, {gain * 100:+.2f} points" in told


def test_sampler_and_dashboard_of_the_search_never_see_the_runs(confirmed: tuple[Path, str]) -> None:
    root, _ = confirmed
    assert len(folded(root).trials) == PLANTED["n_trials"]
    study = optuna.load_study(study_name="fake", storage=Workspace(root).optuna_url)
    assert len(study.trials) == PLANTED["n_trials"]


def test_each_run_has_its_own_run_in_mlflow(confirmed: tuple[Path, str]) -> None:
    root, _ = confirmed
    client = connect(Workspace(root).mlflow_url)
    experiment = client.get_experiment_by_name("fake")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.phase = 'confirm-1'", max_results=1000)
    assert len(runs) == sum(N_RUNS.values())
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert Counter(run.data.tags["stage"] for run in runs) == N_RUNS
    tested = [run.data.metrics["test_accuracy"] for run in runs if run.data.tags["stage"] == FINAL]
    ledger = [run.tested.metrics["test_accuracy"] for run in phase(root).trials.values() if run.tested]
    assert sorted(tested) == pytest.approx(sorted(ledger))
    assert not any("test_accuracy" in run.data.metrics for run in runs if run.data.tags["stage"] != FINAL)
    everything = client.search_runs([experiment.experiment_id], max_results=1000)
    of_search = [run for run in everything if "trial" in run.data.tags and "phase" not in run.data.tags]
    assert len(of_search) == PLANTED["n_trials"]


def test_same_command_again_prints_the_same_and_trains_nothing(confirmed: tuple[Path, str]) -> None:
    root, told = confirmed
    before = events_of(root)
    again = confirm(root)
    assert again.splitlines() == told.splitlines()[-len(again.splitlines()) :]
    assert "Does regularization help?" in again
    assert events_of(root) == before


def test_damaged_predictions_are_refused(confirmed: tuple[Path, str]) -> None:
    root, _ = confirmed
    path = next((Workspace(root).study("fake") / "confirm-1" / "predictions").glob("*.npz"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        done = command(root, "--study", "fake", module="search.confirm")
    finally:
        path.write_bytes(whole)
    assert done.returncode == 1
    assert "what was predicted on the test set is damaged" in done.stderr


def test_ablation_finds_what_was_planted_on_the_winner_s_own_seeds(confirmed: tuple[Path, str]) -> None:
    root, _ = confirmed
    told = confirm(root, module="search.ablate")
    assert "quality: helps" in told.replace("  ", " ")
    seeds = {run.seeds for run in phase(root).trials.values() if run.stage == FINAL}
    runs = phase(root, "ablate-1").trials.values()
    assert {run.seeds for run in runs} < seeds
    assert not [event for event in events_of(root) if isinstance(event, NetworkTested) and event.phase == "ablate-1"]
    before = events_of(root)
    assert confirm(root, module="search.ablate").splitlines()[-1] == told.splitlines()[-1]
    assert events_of(root) == before


def test_reproduced_trial_is_identical(confirmed: tuple[Path, str]) -> None:
    root, _ = confirmed
    told = confirm(root, "--trial", "3", module="search.reproduce")
    assert "Trial 3: identical: every metric of all" in told
    missing = command(root, "--study", "fake", "--trial", "99", module="search.reproduce")
    assert missing.returncode == 1
    assert "--trial: fake has no trial 99 that trained an epoch. It has 0, 1," in missing.stderr


def test_another_confirmation_must_be_asked_for_and_is_told(confirmed: tuple[Path, str]) -> None:
    root, _ = confirmed
    told = confirm(root, "--again", "--budget", "0.01s")
    assert "The test set was used 2 times" in told
    assert "That is the least that says anything; it will exceed the budget of 0.01 s." in told
    assert "A budget of 0.01 s leaves: configurations 2 of 5, seeds to choose among them 2 of 4," in told
    assert "5 seeds in place of 13" in told
    state = folded(root)
    assert [used.purpose for used in state.tests] == ["confirm-1", "confirm-2"]
    first, second = ({run.seeds for run in state.phases[name].trials.values()} for name in ("confirm-1", "confirm-2"))
    assert not first & second


# ---------------------------------------------------------------- interruption


def searched_alone(root: Path, **changes: Any) -> Path:
    """A finished search without its views, which costs a tenth of the command."""
    workplace(root, **changes)
    coordinate(fake_study(**changes), root)
    return root


def _wait_until(root: Path, process: "subprocess.Popen[str]", n_events: int) -> None:
    wait_for(lambda: process.poll() is not None or len(events_of(root)) >= n_events)


@pytest.mark.parametrize(
    ("seed", "n_kills"), [(0, 1), *(pytest.param(seed, 4, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_confirmation_goes_on_after_kills_and_an_interrupt_and_counts_nothing_twice(
    tmp_path: Path, seed: int, n_kills: int
) -> None:
    """Killed at random moments of its training and its testing; Ctrl-C says how to go on."""
    rng = random.Random(seed)
    put_champion(tmp_path)
    data = {"update_s": 0.003, "program": str(tmp_path / "champion.pt2")}
    root = searched_alone(tmp_path, **PLANTED | {"checkpoints": 2, "data": data})
    for kill in range(n_kills + 1):
        n_before = len(events_of(root))
        process = begin(root, "--study", "fake", module="search.confirm")
        _wait_until(root, process, n_before + rng.randrange(20, 500 // (n_kills + 1)))
        os.killpg(process.pid, signal.SIGINT if kill == 0 else signal.SIGKILL)
        out, err = process.communicate(timeout=60)
        if kill == 0:
            assert process.returncode == 130, err
            assert "nothing is lost. To continue: python -m search.confirm --study fake" in out
            assert not phase(root).running
    assert "Confirmed" in confirm(root)
    state = folded(root)
    assert_whole(state.phases["confirm-1"])
    assert [used.purpose for used in state.tests] == ["confirm-1"]
    assert any(len(run.attempts) > 1 for run in state.phases["confirm-1"].trials.values())
    assert_weights(Workspace(root).study("fake"), state)


def assert_weights(folder: Path, state: State) -> None:
    """The search's are as they were, the phase left none."""
    kept = {trial.checkpoint.path: trial.checkpoint.sha256 for trial in state.trials.values() if trial.checkpoint}
    assert len(kept) == 2
    for path, digest in kept.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest
    assert not list((folder / "confirm-1").glob("checkpoints/*"))


# ---------------------------------------------------------------- what is refused


def test_what_cannot_be_confirmed_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    root = workplace(tmp_path)
    before = files_in(root)

    def refused(*options: str, module: str = "search.confirm") -> str:
        done = command(root, *options, module=module)
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        return done.stderr

    assert "None was run here. Run it first: python -m search.run --study NAME." in refused("--study", "fake")
    assert "must be a time such as 90s, 20m or 1.5h, got 'soon'" in refused("--study", "fake", "--budget", "soon")
    assert "there is no such study" in refused("--study", "fake", module="search.ablate")
    assert "there is no such study" in refused("--study", "../fake", "--trial", "0", module="search.reproduce")
    assert files_in(root) == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": {"validation": "train"}}, "measured on the training examples themselves"),
        ({"data": {"validation": "original_test", "test_checksum": "7e57"}}, "measured on the published test set"),
        ({"metric": "train_accuracy"}, "it judges by train_accuracy, which says nothing of new data"),
    ],
)
def test_study_without_unseen_data_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    root = searched_alone(tmp_path, n_trials=2, epochs=1, **changes)
    before = events_of(root)
    done = command(root, "--study", "fake", module="search.confirm")
    assert done.returncode == 1
    assert told in done.stderr
    assert events_of(root) == before


def test_ablation_before_confirmation_is_refused(tmp_path: Path) -> None:
    root = searched_alone(tmp_path, n_trials=2, epochs=1)
    done = command(root, "--study", "fake", module="search.ablate")
    assert done.returncode == 1
    assert "no winner is confirmed yet" in done.stderr

"""Claims of the report about every kind of study: of a loss, unconfirmed, unconfirmable, under way, confirmed twice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.ablation import Ablation
from search.conclusions import Confirmation, concluded
from search.confirmation import FINAL, ConfirmationPlan
from search.definition import StudyDefinition, baseline_raw
from search.events import StudyCreated
from search.headline import LONGEST, Evidence, sentence, told_apart
from search.page import render
from search.predictions import scores
from search.reporting import measured, reported
from search.state import State, Trial
from search.statistics import Interval, Paired
from search.verdicts import Effect, Label
from search.workspace import Workspace
from tests.phases import follow
from tests.running import command, coordinate, fake_study
from tests.said import Said
from tests.searches import searched
from tests.studies import definition
from tests.test_confirmation import POINT, search_of

N = 400
"""Test examples."""
FACTS: dict[str, Any] = {
    "data_set": "toy",
    "checksum": "f00d",
    "n_train": 900,
    "n_validation": 100,
    "classes": ["a", "b"],
}


def created(study: StudyDefinition, **facts: Any) -> StudyCreated:
    return StudyCreated(
        at=0,
        study=study.name,
        definition=study.model_dump(mode="json"),
        fingerprint="",
        precision="float32",
        facts={**FACTS, **facts},
        versions={},
        commit="",
    )


def search(study: StudyDefinition, values: Sequence[float], **facts: Any) -> State:
    state = search_of(values, study)
    state.created = created(study, **facts)
    return state


def said(study: StudyDefinition, state: State, evidence: Evidence | None = None) -> Said:
    return Said(render(reported(study, state, evidence or Evidence(), written="2026-03-14")))


def outputs(study: StudyDefinition, run: Trial) -> dict[str, Any]:
    """Of two classes, right as often as the run's value says; or numbers, whose loss is the run's value."""
    rng, value = np.random.default_rng(run.seeds[0] % 2**32), run.value or 0.0
    if not study.metric.endswith("accuracy"):
        losses = rng.permutation(np.linspace(0.5, 1.5, N)) * value
        return {"outputs": np.zeros((N, 1), np.float32), "targets": np.sqrt(losses), "losses": losses}
    targets = np.arange(N) % 2
    right = rng.permutation(N) < N * value
    return {"outputs": np.eye(2, dtype=np.float32)[np.where(right, targets, 1 - targets)], "targets": targets}


def confirm(
    study: StudyDefinition, state: State, values: Mapping[str, float], phase: str = "confirm-1"
) -> Confirmation:
    """Confirm by a truth: a value for each configuration, and a little of each seed."""

    def truth(run: Trial) -> float:
        name = run.configuration.partition(",")[0]
        return values.get(name, 0.5) + (run.seeds[0] % 11 - 5) * 1e-3

    plan = ConfirmationPlan(definition=study, search=state, phase=phase)
    follow(study, state, phase, plan, truth, tested=FINAL)

    def scored(run: Trial) -> Any:
        assert run.tested is not None
        return scores(outputs(study, run), run.tested, metric=study.metric, maximize=study.maximize)

    return concluded(study, state, phase, scored, n_examples=N)


def evidence(study: StudyDefinition, state: State, *found: Confirmation) -> Evidence:
    last = found[-1]
    runs = [
        r for r in state.phases[last.phase].trials.values() if (r.stage, r.configuration) == (FINAL, last.winner.name)
    ]
    return Evidence(confirmations=found, predictions=[outputs(study, run) for run in runs])


# ---------------------------------------------------------------- before a confirmation


def test_unconfirmed_study_says_that_its_number_flatters_and_what_to_run() -> None:
    study = definition(n_trials=3)
    page = said(study, search(study, [0.5, 0.7, 0.6]))
    assert "No verdict yet: 70.0 % is the best of 3 trials" in page.sections["answer"]
    assert "Not confirmed: run python -m search.confirm --study study" in page.sections["answer"]
    assert "so far" not in page.sections["answer"]
    assert (
        "Not ablated: confirm the winner, then run python -m search.ablate --study study" in page.sections["ablation"]
    )
    assert "None: nothing has read it." in page.sections["provenance"]


def test_unfinished_search_says_so_far() -> None:
    study = definition(n_trials=20)
    assert "so far: 3 of 20 trials finished" in said(study, search(study, [0.5, 0.7, 0.6])).sections["answer"]


def test_study_of_pruned_trials_alone_has_no_best() -> None:
    study = definition(n_trials=2)
    ends: Any = {0: ("pruned", "diverged"), 1: ("pruned", "rung")}
    state = searched(study, [(dict(study.baseline), None), (POINT, 0.6)], ends=ends)
    state.created = created(study)
    assert "No verdict yet: no trial is complete." in said(study, state).sections["answer"]


@pytest.mark.parametrize(
    ("facts", "why", "words"),
    [
        ({"validation": "train"}, "it was measured on its own training examples", "900 training examples"),
        ({"validation": "original_test"}, "it was measured on the published test set", "100 published test examples"),
    ],
)
def test_study_without_unseen_data_says_why_it_cannot_be_confirmed(facts: dict[str, Any], why: str, words: str) -> None:
    study = definition(n_trials=3)
    page = said(study, search(study, [0.5, 0.7, 0.6], **facts))
    answer = page.sections["answer"]
    assert f"Cannot be confirmed: {why}" in answer
    assert "Give [data] validation a number of examples, in another study." in answer
    assert words in answer
    assert "No verdict:" in answer
    assert "search.confirm" not in "".join(page.sections.values())


def test_study_judged_by_its_training_examples_says_so() -> None:
    study = definition(n_trials=3, metric="train_accuracy")
    page = said(study, search(study, [0.5, 0.7, 0.6]))
    assert "Cannot be confirmed: it judges by train_accuracy" in page.sections["answer"]
    assert measured(study, search(study, [0.5])).searched == "training accuracy"


def test_a_metric_of_one_s_own_is_called_by_its_name() -> None:
    study = definition(metric="val_mean_error", direction="minimize", n_trials=3)
    page = said(study, search(study, [0.5, 0.7, 0.6]))
    assert "0.5 is the best of 3 trials" in page.sections["answer"]
    assert "Confirmed test mean error" in page.sections["answer"]


# ---------------------------------------------------------------- confirmed


def test_planted_gain_is_a_yes_that_fits_the_first_screen() -> None:
    study = definition(n_trials=3)
    state = search(study, [0.6, 0.8, 0.7])
    found = confirm(study, state, {"trial 1": 0.8, "trial 2": 0.7, "baseline": 0.6, "unregularized": 0.6})
    page = said(study, state, evidence(study, state, found))
    assert found.verdict == "confirmed"
    assert "Yes: weight_decay" in page.sections["answer"]
    assert "13 seeds, 400 test examples" in page.sections["answer"]
    assert len(sentence(study, measured(study, state), found)) <= LONGEST
    assert {row[0] for row in page.tables["Confusion matrix"][1:]} == {"a", "b"}


def test_equal_configurations_are_not_shown_with_the_gain_that_would_have_been_seen() -> None:
    study = definition(n_trials=3)
    state = search(study, [0.6, 0.61, 0.6])
    names = ("trial 1", "trial 2", "baseline", "unregularized")
    found = confirm(study, state, dict.fromkeys(names, 0.6))
    answer = said(study, state, evidence(study, state, found)).sections["answer"]
    assert "Not shown: weight_decay" in answer
    assert "would be seen in 80 % of cases" in answer


@pytest.mark.parametrize("better", [True, False])
def test_loss_is_told_as_it_is_and_a_gain_is_one_that_lowers_it(better: bool) -> None:
    study = definition(n_trials=3, metric="val_loss", direction="minimize", objective="regression")
    state = search(study, [0.6, 0.4, 0.5], classes=[])
    unregularized = 0.6 if better else 0.2
    truth = {"trial 1": 0.4, "trial 2": 0.5, "baseline": 0.6, "unregularized": unregularized}
    found = confirm(study, state, truth)
    page = said(study, state, evidence(study, state, found))
    rows = page.rows("The finalists")
    means = {name.split()[0]: float(cells[0]) for name, cells in rows.items()}
    assert means == pytest.approx({"winner": 0.4, "runner-up": 0.5, "baseline": 0.6, "best": unregularized}, abs=0.01)
    for cells in rows.values():
        low, high = (float(end) for end in cells[1].split(", "))
        assert low < float(cells[0]) < high
    gain = float(page.rows("The winner against the others")["best unregularized"][0])
    assert gain == pytest.approx(unregularized - 0.4, abs=0.01)
    assert ("Yes:" if better else "No:") in page.sections["answer"]
    assert "points" not in page.sections["answer"]
    assert "too good" in page.sections["answer"] or "too low" in page.sections["answer"]
    assert "confusion" not in page.sections
    assert "calibration" not in page.sections


def test_second_use_of_the_test_set_is_told_with_what_the_first_said() -> None:
    study = definition(n_trials=3)
    state = search(study, [0.6, 0.8, 0.7])
    truth = {"trial 1": 0.8, "trial 2": 0.7, "baseline": 0.6, "unregularized": 0.6}
    both = [confirm(study, state, truth, name) for name in ("confirm-1", "confirm-2")]
    page = said(study, state, evidence(study, state, *both))
    assert "The test set was used 2 times" in page.sections["sure"]
    assert "confirm-1 said: confirmed (+20." in page.sections["sure"]
    assert [row[1].partition(":")[0] for row in page.tables["Uses of the test set"][1:]] == ["confirm-1", "confirm-2"]


def test_class_names_are_escaped() -> None:
    study = definition(n_trials=3)
    hostile = "<script>alert(1)</script>"
    state = search(study, [0.6, 0.8, 0.7], classes=["a", hostile])
    found = confirm(study, state, {"trial 1": 0.8, "baseline": 0.6, "unregularized": 0.6})
    page = said(study, state, evidence(study, state, found))
    assert page.scripts == 0
    assert hostile in {row[0] for row in page.tables["Confusion matrix"][1:]}


@pytest.mark.parametrize(("n", "length"), [(0, 1), (2, 5), (8, 10), (12, 20)])
def test_sentence_fits_whatever_the_number_and_the_names_of_the_regularizers(n: int, length: int) -> None:
    names, plain = [chr(97 + k) * length for k in range(n)], definition()
    switches = {name: {"kind": "float", "low": 0.0, "high": 1.0, "regularizer": True, "off": 0.0} for name in names}
    study = definition(
        n_trials=2,
        space={**plain.model_dump()["space"], **switches},
        baseline={**plain.baseline, **dict.fromkeys(names, 0.0)},
    )
    state = searched(study, [(baseline_raw(study), 0.5), (POINT | dict.fromkeys(names, 0.123456), 0.8)])
    state.created = created(study)
    found = confirm(study, state, {"trial 1": 0.8, "baseline": 0.6, "unregularized": 0.6})
    told = sentence(study, measured(study, state), found)
    assert len(told) <= LONGEST
    assert told.startswith("weight_decay" if n <= 2 else f"trial 1, with {n + 3} regularizers, gains")


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose search is half through, in a place without MLflow's database."""
    root = tmp_path_factory.mktemp("half")
    coordinate(fake_study(), root, stop=lambda state: "enough" if len(state.finished) >= 3 else None)
    return root


def test_report_of_a_search_under_way_is_written_without_mlflow_which_is_told(root: Path, tmp_path: Path) -> None:
    done = command(root, "--study", "fake", "--output", str(tmp_path / "mine.html"), module="search.report")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "mine.html") in done.stdout
    assert (tmp_path / "mine.html").as_uri() in done.stdout
    assert "warning: the report is written, but MLflow got no copy" in done.stderr
    assert "so far:" in Said((tmp_path / "mine.html").read_text()).sections["answer"]
    assert list(tmp_path.iterdir()) == [tmp_path / "mine.html"]
    assert not Workspace(root).mlruns.exists()


def test_quiet_report_lies_with_the_study(root: Path) -> None:
    done = command(root, "--study", "fake", "--quiet", module="search.report")
    assert (done.returncode, done.stdout) == (0, "")
    assert (Workspace(root).study("fake") / "report.html").exists()


def test_what_cannot_be_reported_is_one_message(root: Path, tmp_path: Path) -> None:
    missing = command(root, "--study", "other", module="search.report")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "there is no such study. Studies that were run here: fake." in missing.stderr
    unwritable = command(root, "--study", "fake", "--output", str(tmp_path / "no/x.html"), module="search.report")
    assert unwritable.returncode == 1
    assert "x.html cannot be written: No such file or directory. Name a file" in unwritable.stderr


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"flip": "helps", "l2": "equivalent"}, " Of its regularizers flip helps; without l2 it is as good."),
        (
            {"a": "helps", "b": "helps", "c": "hurts", "d": "equivalent", "e": "equivalent", "f": "no evidence"},
            " Of its regularizers a and b help; c hurts; without d and e it is as good, each alone.",
        ),
        ({"a": "equivalent", "b": "equivalent"}, " Turned off alone, none of its regularizers is missed."),
        ({"a": "equivalent", "b": "no evidence"}, ""),
    ],
)
def test_choice_says_which_regularizers_do_anything(labels: dict[str, Label], told: str) -> None:
    test = Paired(mean=0.0, deviation=0.0, interval=Interval(0, 0), p_value=1.0, n=10)
    effects = {
        name: Effect(name=name, paired=test, interval=Interval(0, 0), p_value=1.0, label=label, seeds_needed=None)
        for name, label in labels.items()
    }
    ablation = Ablation(
        phase="ablate-1",
        confirmation="confirm-1",
        active=tuple(labels),
        effects=effects,
        factorial={},
        means={},
        margin=0.005,
        n_seeds=10,
        reduced=(),
    )
    assert told_apart(ablation) == told
    assert told_apart(None) == ""

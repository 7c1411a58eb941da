"""Claims of search.report: every number of the page is that of the stores, recomputed here from their raw rows.

A real study of digits is searched, confirmed, ablated and reported by the commands, each a process. What the page says
is compared with the rows of the ledger, Optuna's storage, MLflow and the stored predictions, by sqlite3, scipy and
scikit-learn; of the project only `search.statistics` (its crossed interval, which has tests of its own) is used.
"""

import itertools
import json
import math
import re
import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import confusion_matrix, log_loss, recall_score

from search import statistics
from search.diagnosis import REMEDIES
from search.mlflow_view import connect
from search.workspace import Workspace
from tests.histories import put_mlflow_database
from tests.running import command, files_in, toml
from tests.said import Said, between, ends, percent, points, tells

DIGITS: dict[str, Any] = {
    "title": "A <b>small</b> study & its title",
    "question": "Does <script>alert('regularization')</script> help?",
    "objective": "classification",
    "n_trials": 12,
    "epochs": 6,
    "seed": 3,
    "trainers": 0,
    "slots": 4,
    "data": {"name": "digits"},
    "fixed": {"model": "mlp", "batch_size": 128, "width": 32},
    "pruning": {"eta": 3, "min_epochs": 2},
    "baseline": {"lr": 1e-3, "dropout": 0.0, "batch_norm": False},
    "space": {
        "lr": {"kind": "log_float", "low": 1e-4, "high": 3e-2},
        "dropout": {"kind": "float", "low": 0.0, "high": 0.4, "regularizer": True, "off": 0.0},
        "batch_norm": {"kind": "bool", "regularizer": True, "off": False},
    },
}
pytestmark = pytest.mark.timeout(600)  # four commands in turn, each with its views: where the machine is busy, minutes
REGULARIZERS = ("dropout", "batch_norm")
Event = tuple[str, dict[str, Any]]


# ---------------------------------------------------------------- what the stores hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training, from the raw rows."""

    phase: str
    number: int
    asked: dict[str, Any]
    attempts: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    finished: dict[str, Any] = field(default_factory=dict)
    tested: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    root: Path
    html: str
    said: Said
    events: list[Event]
    runs: dict[tuple[str, int], Run]

    def of(self, kind: str, phase: str | None = None) -> list[dict[str, Any]]:
        return [row for k, row in self.events if k == kind and phase in (None, row.get("phase", ""))]

    def named(self, phase: str, stage: str) -> dict[str, list[Run]]:
        """The runs of a stage by their configuration."""
        found: dict[str, list[Run]] = {}
        for run in self.runs.values():
            if (run.phase, run.asked["stage"]) == (phase, stage):
                found.setdefault(run.asked["configuration"], []).append(run)
        return found

    def predicted(self, run: Run) -> dict[str, NDArray[Any]]:
        path = self.root / "studies" / "fake" / run.phase / run.tested["predictions"]
        with np.load(path) as stored:
            return dict(stored)

    def matrix(self, name: str) -> NDArray[np.float64]:
        """Right or wrong, seeds x examples."""
        stored = [self.predicted(run) for run in self.named("confirm-1", "final")[name]]
        return np.stack([(each["outputs"].argmax(1) == each["targets"]).astype(float) for each in stored])

    @property
    def roles(self) -> dict[str, str]:
        """Winner and runner-up by the means of "select", the best unregularized by those of "sweep"."""

        def order(stage: str) -> list[str]:
            means = {
                name: np.mean([run.finished["value"] for run in of])
                for name, of in self.named("confirm-1", stage).items()
            }
            return sorted(means, key=lambda name: -means[name])

        winner, runner_up, *_ = order("select")
        sweep = order("sweep")[0]
        return {"winner": winner, "runner-up": runner_up, "baseline": "baseline", "best unregularized": sweep}


def raw(root: Path) -> tuple[list[Event], dict[tuple[str, int], Run]]:
    with sqlite3.connect(f"file:{root / 'studies/fake/ledger.db'}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT kind, payload FROM events ORDER BY seq").fetchall()
    events = [(kind, json.loads(payload)) for kind, payload in rows]
    runs: dict[tuple[str, int], Run] = {}
    for kind, row in events:
        key = (row.get("phase", ""), row.get("trial", -1))
        match kind:
            case "TrialAsked":
                runs[key] = Run(phase=key[0], number=key[1], asked=row)
            case "AttemptStarted":
                runs[key].attempts.append(row)
            case "EpochReported":
                runs[key].epochs.append(row)
            case "TrialFinished":
                runs[key].finished.update(row)
            case "NetworkTested":
                runs[key].tested.update(row)
    return events, runs


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """A real study, searched, confirmed, ablated and reported; the fastest each command offers."""
    root = tmp_path_factory.mktemp("digits")
    (root / "studies").mkdir()
    (root / "studies/fake.toml").write_text(toml(DIGITS))
    put_mlflow_database(root / "mlruns")
    for module, *options in (["run"], ["confirm", "--budget", "1s"], ["ablate", "--budget", "1s"], ["report"]):
        done = command(root, "--study", "fake", *options, module=f"search.{module}")
        assert done.returncode == 0, done.stderr
    html = (root / "studies/fake/report.html").read_text()
    events, runs = raw(root)
    return Stores(root=root, html=html, said=Said(html), events=events, runs=runs)


# ---------------------------------------------------------------- the answer


def test_headline_is_the_winner_s_mean_on_the_test_set_beside_what_the_search_said(stores: Stores) -> None:
    answer, winner = stores.said.sections["answer"], stores.matrix(stores.roles["winner"])
    study = optuna.load_study(study_name="fake", storage=Workspace(stores.root).optuna_url)
    naive, mean = study.best_value, float(winner.mean())
    interval = statistics.summary(winner, seed=0).interval
    assert f"Confirmed test accuracy {percent(mean)}" in answer
    assert f"95 % interval {100 * interval.low:.1f} to {percent(interval.high)}" in answer
    assert f"The search's best said {percent(naive)}".replace("'", "’") in answer
    too = "too good" if naive > mean else "too low"
    assert f"{100 * abs(naive - mean):.1f} points {too}" in answer


def test_verdict_is_that_of_the_interval_over_seeds_and_examples(stores: Stores) -> None:
    answer, roles = stores.said.sections["answer"], stores.roles
    gain = statistics.compare(stores.matrix(roles["winner"]), stores.matrix(roles["best unregularized"]), seed=0)
    word = "Yes:" if gain.interval.low > 0 else "No:" if gain.interval.high < 0 else "Not shown:"
    assert word in answer
    assert f"95 % interval {between(gain.interval.low, gain.interval.high)}" in answer
    values = stores.named("confirm-1", "final")[roles["winner"]][0].asked["hyperparameters"]
    assert all((name in answer) == bool(values[name]) for name in REGULARIZERS)


def test_finalists_have_the_means_and_intervals_of_their_predictions(stores: Stores) -> None:
    rows = stores.said.rows("The finalists")
    rows.pop("configuration", None)
    for role, name in stores.roles.items():
        scores = stores.matrix(name)
        means = scores.mean(axis=1)
        alone = stats.t.interval(0.95, len(means) - 1, means.mean(), stats.sem(means))
        interval = statistics.summary(scores, seed=0).interval
        cells = next(cells for first, cells in rows.items() if first.startswith(role))
        assert cells == [
            percent(means.mean()),
            ends(interval.low, interval.high),
            ends(*alone),
            f"{100 * means.std(ddof=1):.1f}",
            str(len(means)),
        ]


def test_differences_have_welch_s_intervals_and_the_shares_of_won_pairs(stores: Stores) -> None:
    rows, winner = stores.said.rows("The winner against the others"), stores.matrix(stores.roles["winner"])
    others = [role for role, name in stores.roles.items() if name != stores.roles["winner"]]
    assert len(others) == 3
    for role in others:
        other = stores.matrix(stores.roles[role])
        first, second = winner.mean(axis=1), other.mean(axis=1)
        welch = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
        pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in first for b in second]
        whole = statistics.compare(winner, other, seed=0)
        difference, interval, alone, chance, _ = rows[role]
        assert difference == points(first.mean() - second.mean())
        assert interval == between(whole.interval.low, whole.interval.high)
        assert alone == between(welch.low, welch.high)
        low, high = (f"{100 * end:.1f}" for end in (whole.probability_interval.low, whole.probability_interval.high))
        assert chance == f"{percent(float(np.mean(pairs)))} [{low}, {high}]"


def test_settings_are_the_winner_s_and_the_baseline_s(stores: Stores) -> None:
    rows, winner = stores.said.rows("Settings of baseline and winner"), stores.named("confirm-1", "final")
    values = winner[stores.roles["winner"]][0].asked["hyperparameters"]
    assert rows["lr"] == ["0.001", f"{values['lr']:.3g}"]
    assert rows["dropout"] == ["○ off", f"● on {values['dropout']:.3g}" if values["dropout"] else "○ off"]
    assert rows["batch_norm"] == ["○ off", "● on" if values["batch_norm"] else "○ off"]


def test_reduced_seeds_and_what_they_can_find_are_told(stores: Stores) -> None:
    for phase, section in (("confirm-1", "sure"), ("ablate-1", "ablation")):
        told = [row["reduced"] for row in stores.of("StagePlanned", phase) if row["reduced"]]
        assert told
        assert " ".join(told) in stores.said.sections[section]


# ---------------------------------------------------------------- the search


def test_best_trials_are_optuna_s(stores: Stores) -> None:
    study = optuna.load_study(study_name="fake", storage=Workspace(stores.root).optuna_url)
    complete = study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    best = sorted(complete, key=lambda trial: (-(trial.value or 0), trial.number))[:5]
    table = stores.said.tables["The best trials"]
    assert table[0][4:] == ["lr", "dropout", "batch_norm"]
    assert [row[0] for row in table[1:]] == [str(trial.number) for trial in best]
    for trial, row in zip(best, table[1:], strict=True):
        assert trial.value is not None
        steps = trial.intermediate_values
        assert row[1] == percent(trial.value)
        assert row[2] == str(min(e for e, value in steps.items() if e > 0 and value == trial.value))
        assert row[4] == f"{trial.params['lr']:.3g}"
        assert row[5] == (f"{trial.params['dropout']:.3g}" if trial.params["dropout"] else "off")
        assert row[6] == ("on" if trial.params["batch_norm"] else "off")


def test_diagnoses_are_counted_as_mlflow_has_them(stores: Stores) -> None:
    client = connect(Workspace(stores.root).mlflow_url)
    experiment = client.get_experiment_by_name("fake")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    labels = {
        run.data.tags["trial"]: run.data.tags["diagnosis"]
        for run in runs
        if "phase" not in run.data.tags and "diagnosis" in run.data.tags
    }
    counts = Counter(labels.values())
    said = stores.said.rows("Diagnoses and remedies")
    assert {label: int(cells[0]) for label, cells in said.items()} == counts
    assert all(cells[1] == REMEDIES[label] for label, cells in said.items())  # type: ignore[index]
    best = {row[0]: row[3] for row in stores.said.tables["The best trials"][1:]}
    assert best == {number: labels[number] for number in best}


def test_typical_curve_of_a_diagnosis_is_the_median_trial_s(stores: Stores) -> None:
    client = connect(Workspace(stores.root).mlflow_url)
    experiment = client.get_experiment_by_name("fake")
    assert experiment is not None
    by_label: dict[str, list[tuple[float, int]]] = {}
    for run in client.search_runs([experiment.experiment_id], max_results=1000):
        if "phase" not in run.data.tags and "diagnosis" in run.data.tags:
            number = int(run.data.tags["trial"])
            by_label.setdefault(run.data.tags["diagnosis"], []).append(
                (stores.runs["", number].finished["value"], number)
            )
    curves = stores.said.sections["curves"]
    for label, trials in by_label.items():
        ordered = sorted(value for value, _ in trials)
        middle = ordered[(len(ordered) - 1) // 2]
        numbers = [number for value, number in trials if value == middle]
        assert any(f"{label.capitalize()} trial {number}" in curves for number in numbers), label


def test_learning_curves_tell_the_validation_loss_at_the_best_epoch(stores: Stores) -> None:
    for row in stores.said.tables["The best trials"][1:]:
        number, best = int(row[0]), int(row[2])
        loss = next(r["metrics"]["val_loss"] for r in stores.runs["", number].epochs if r["epoch"] == best)
        assert f"epoch {best}, {loss:.4g}" in stores.said.charts[f"Trial {number}"]


def test_bins_of_the_dose_response_have_the_means_of_their_trials(stores: Stores) -> None:
    searched = [run for run in stores.runs.values() if not run.phase]
    for name in REGULARIZERS:
        off = [r.finished["value"] for r in searched if not r.asked["hyperparameters"][name]]
        desc = stores.said.charts[f"Validation accuracy by {name}"]
        assert tells(_bin(desc, "off"), float(np.mean(off)))
    on = [r.finished["value"] for r in searched if r.asked["hyperparameters"]["batch_norm"]]
    assert tells(_bin(stores.said.charts["Validation accuracy by batch_norm"], "1"), float(np.mean(on)))


def _bin(desc: str, dose: str) -> str:
    found = re.search(rf"\b{dose}: ([\d.]+) %", desc)
    assert found, desc
    return found[1]


def test_expected_best_is_the_mean_over_all_ways_to_draw_the_trials(stores: Stores) -> None:
    values = [run.finished["value"] for run in stores.runs.values() if not run.phase and run.number > 0]
    rows = stores.said.rows("Expected best against the number of trials")
    assert len(rows) >= 5
    for n, (expected, band) in rows.items():
        best = np.array(sorted(max(chosen) for chosen in itertools.combinations(values, int(n))))
        assert tells(expected, float(best.mean()))
        low, high = (best[max(math.ceil(q * len(best) - 1e-9) - 1, 0)] for q in (0.025, 0.975))
        assert band == ends(low, high)


def test_importance_by_ped_anova_is_optuna_s(stores: Stores) -> None:
    trials = [run for run in stores.runs.values() if not run.phase]
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        "lr": optuna.distributions.FloatDistribution(1e-4, 3e-2, log=True),
        "dropout": optuna.distributions.FloatDistribution(0.0, 0.4),
        "batch_norm": optuna.distributions.CategoricalDistribution((False, True)),
    }
    study = optuna.create_study(direction="maximize")
    for run in trials:
        value = run.finished["value"]
        study.add_trial(optuna.trial.create_trial(params=run.asked["raw"], distributions=distributions, value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / len(trials)))
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    said = stores.said.charts["Importance of each parameter"]
    for name, share in found.items():
        assert f"{name}: PED-ANOVA {100 * share:.0f} % [" in said


# ---------------------------------------------------------------- ablation


def test_ablation_has_the_paired_differences_of_the_winner_s_own_seeds(stores: Stores) -> None:
    own = {r.asked["seeds"][0]: r.finished["value"] for r in stores.named("confirm-1", "final")[stores.roles["winner"]]}
    without = {
        name.removeprefix("without "): {r.asked["seeds"][0]: r.finished["value"] for r in of}
        for name, of in stores.named("ablate-1", "ablation").items()
        if " and " not in name
    }
    assert without
    tests = {}
    for name, values in without.items():
        gains = np.array([own[seed] - value for seed, value in values.items()])
        tests[name] = (gains, stats.ttest_1samp(gains, 0.0))
    ordered = sorted(tests, key=lambda name: float(tests[name][1].pvalue))
    adjusted: dict[str, float] = {}
    for rank, name in enumerate(ordered):
        worst = max(adjusted.values(), default=0.0)
        adjusted[name] = max(worst, min(1.0, (len(ordered) - rank) * float(tests[name][1].pvalue)))
    rows, chart = stores.said.rows("What each regularizer gains"), stores.said.charts["What each regularizer gains"]
    assert set(rows) == set(without)
    for name, (differences, test) in tests.items():
        label, gain, p_value, _ = rows[name]
        interval = test.confidence_interval()
        assert tells(gain, differences.mean())
        assert p_value == ("< 0.001" if adjusted[name] < 0.001 else f"{adjusted[name]:.3f}")
        written = re.search(rf"{name} {re.escape(gain)} \[([-\d.]+), ([-\d.]+)\]", chart)
        assert written
        assert tells(written[1], interval.low)
        assert tells(written[2], interval.high)
        if adjusted[name] < 0.05:
            assert label.endswith("helps" if differences.mean() > 0 else "hurts")
        else:
            assert label.endswith(("equivalent", "no evidence"))


# ---------------------------------------------------------------- the winner's predictions


def winner_s(stores: Stores) -> list[dict[str, NDArray[Any]]]:
    return [stores.predicted(run) for run in stores.named("confirm-1", "final")[stores.roles["winner"]]]


def test_confusion_and_recalls_are_scikit_learn_s(stores: Stores) -> None:
    stored = winner_s(stores)
    targets, called = (
        np.concatenate(x) for x in zip(*((s["targets"], s["outputs"].argmax(1)) for s in stored), strict=True)
    )
    shares = confusion_matrix(targets, called, normalize="true")
    rows = stores.said.rows("Confusion matrix")
    assert [[float(cell) for cell in rows[str(k)]] for k in range(10)] == pytest.approx(100 * shares, abs=0.0501)
    recalls = recall_score(targets, called, average=None)
    said = stores.said.charts["Recall of each class, the lowest first"]
    z = stats.norm.ppf(0.975)
    for k, p in enumerate(recalls):
        n = int((stored[0]["targets"] == k).sum())
        middle, half = (p + z**2 / (2 * n)), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n * n))
        low, high = ((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n))
        assert f"{k} {percent(p)} [{100 * low:.1f}, {100 * min(high, 1.0):.1f}]" in said


def test_calibration_is_that_of_the_softmaxed_outputs(stores: Stores) -> None:
    eces, nlls = [], []
    for stored in winner_s(stores):
        logits = stored["outputs"].astype(float)
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        confidence, right = probabilities.max(1), probabilities.argmax(1) == stored["targets"]
        ece = 0.0
        for k in range(15):
            inside = (confidence > k / 15) & (confidence <= (k + 1) / 15)
            if inside.any():
                ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        eces.append(ece)
        nlls.append(log_loss(stored["targets"], probabilities, labels=range(10)))
    said = stores.said.sections["calibration"]
    for values, scale, digits in ((eces, 100, ".1f"), (nlls, 1, ".4g")):
        mean, spread = float(np.mean(values)), stats.sem(values)
        low, high = stats.t.interval(0.95, len(values) - 1, mean, spread)
        assert format(scale * mean, digits) in said
        assert f"95 % interval {format(scale * low, digits)} to {format(scale * high, digits)}" in said


# ---------------------------------------------------------------- cost and provenance


def _seconds(told: str) -> float:
    units = {"h": 3600, "min": 60, "s": 1}
    words = told.split()
    return sum(float(n) * units[unit] for n, unit in zip(words[::2], words[1::2], strict=True))


def test_cost_is_that_of_the_ledger_s_rows(stores: Stores) -> None:
    rows = stores.said.rows("What each phase cost")
    assert list(rows) == ["search", "confirm-1", "ablate-1"]
    for name, (n, epochs, wall, trainer, _) in rows.items():
        phase = "" if name == "search" else name
        runs = [run for run in stores.runs.values() if run.phase == phase]
        assert int(n) == len(runs)
        assert int(epochs.replace(",", "")) == sum(max(r["epoch"] for r in run.epochs) for run in runs)
        (opened,), (closed,) = stores.of("SessionOpened", phase), stores.of("SessionClosed", phase)
        assert _seconds(wall) == pytest.approx(closed["at"] - opened["at"], rel=0.01, abs=0.51)
        spans = sorted((run.attempts[0]["at"], run.finished["at"]) for run in runs)
        union, until = 0.0, -math.inf
        for start, end in spans:
            union += max(0.0, end - max(start, until))
            until = max(until, end)
        assert _seconds(trainer) == pytest.approx(union, rel=0.01, abs=0.51)
    searched = [run for run in stores.runs.values() if not run.phase]
    left = sum(6 - max(r["epoch"] for r in run.epochs) for run in searched if run.finished["outcome"] == "pruned")
    assert f"Epochs saved by pruning {left} " in stores.said.sections["cost"]


def test_provenance_and_uses_of_the_test_set_are_the_ledger_s(stores: Stores) -> None:
    (created,), (used,) = stores.of("StudyCreated"), stores.of("TestSetUsed")
    tested = [run for run in stores.runs.values() if run.tested]
    table = {row[0]: row[1] for row in stores.said.tables["Where these numbers come from"]}
    facts = created["facts"]
    assert table["Data"] == (
        f"digits, {facts['n_train']} training and {facts['n_validation']} validation examples; "
        f"checksum {facts['checksum']}"
    )
    (checksum,) = {run.tested["checksum"] for run in tested}
    assert table["Test set"] == f"{len(winner_s(stores)[0]['targets'])} examples, checksum {checksum}"
    assert table["Versions"] == ", ".join(f"{name} {version}" for name, version in created["versions"].items())
    assert created["precision"] in table["Precision"]
    assert created["commit"] in table.get("Commit", "")
    assert all(row["device"] in table["Device"] for row in stores.of("SessionOpened"))
    when = datetime.fromtimestamp(used["at"], UTC).strftime("%Y-%m-%d %H:%M")
    names = ", ".join(dict.fromkeys(run.asked["configuration"] for run in tested))
    assert stores.said.rows("Uses of the test set") == {when: [f"confirm-1: {names}", str(len(tested))]}
    number = stores.roles["winner"].removeprefix("trial ")
    for line in ("run", "confirm", "ablate", "report", f"reproduce --study fake --trial {number}"):
        assert f"python -m search.{line if ' ' in line else f'{line} --study fake'}" in stores.html


def test_page_escapes_the_study_s_own_words(stores: Stores) -> None:
    assert stores.said.scripts == 0
    assert "Does <script>alert('regularization')</script> help?" in stores.said.sections["answer"]
    assert "A <b>small</b> study & its title" in stores.said.sections["answer"]


def test_mlflow_keeps_the_same_page_with_the_study_s_parent_run(stores: Stores, tmp_path: Path) -> None:
    client = connect(Workspace(stores.root).mlflow_url)
    experiment = client.get_experiment_by_name("fake")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.ledger != ''")
    assert "trial" not in parent.data.tags
    kept = client.download_artifacts(parent.info.run_id, "report/report.html", str(tmp_path))
    assert Path(kept).read_text() == stores.html


def test_report_changes_nothing_but_the_page_and_names_damaged_predictions(stores: Stores, tmp_path: Path) -> None:
    path = next((stores.root / "studies/fake/confirm-1/predictions").glob("*.npz"))
    before = {name: content for name, content in files_in(stores.root / "studies").items() if "optuna" not in name}
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        done = command(stores.root, "--study", "fake", "--output", str(tmp_path / "x.html"), module="search.report")
    finally:
        path.write_bytes(whole)
    assert done.returncode == 1
    assert "what was predicted on the test set is damaged" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x.html").exists()
    after = {name: content for name, content in files_in(stores.root / "studies").items() if "optuna" not in name}
    assert {n for n in before | after if before.get(n) != after.get(n)} <= {"fake/ledger.db-shm", "fake/ledger.db-wal"}

"""Claims of search.report: every number of the page is that of the stores, recomputed here from their raw rows.

A real study of digits is searched, confirmed, ablated and reported by the commands, each a process. What the page says
is compared with the rows of the ledger, Optuna's storage, MLflow and the stored predictions, by sqlite3, scipy,
scikit-learn and tests/recomputed.py. Of the project `search.statistics` is used, for the ends of its crossed intervals:
how wide they are, how they lean and what they could have found is recomputed as well.
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
from tests import recomputed
from tests.histories import put_mlflow_database
from tests.recomputed import Picture
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
LEADS = "The winner against the others"
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

    @property
    def study(self) -> optuna.Study:
        return optuna.load_study(study_name="fake", storage=Workspace(self.root).optuna_url)

    def trials(self) -> list[tuple[optuna.trial.FrozenTrial, float]]:
        """Optuna's that have a value, complete or pruned, with it."""
        return [(trial, trial.value) for trial in self.study.trials if trial.value is not None]

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
    naive, mean = stores.study.best_value, float(winner.mean())
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
    rows, winner = stores.said.rows(LEADS), stores.matrix(stores.roles["winner"])
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


def test_crossed_intervals_have_the_width_of_the_variance_components_and_the_lean_of_the_bootstrap(
    stores: Stores,
) -> None:
    """Of each finalist, and of each difference: those that the tests above found on the page."""
    winner = stores.matrix(stores.roles["winner"])
    for name in dict.fromkeys(stores.roles.values()):
        other = stores.matrix(name)
        crossed: list[tuple[tuple[NDArray[np.float64], ...], statistics.Interval]] = [
            ((other,), statistics.summary(other, seed=0).interval)
        ]
        if name != stores.roles["winner"]:
            crossed.append(((winner, other), statistics.compare(winner, other, seed=0).interval))
        for sides, interval in crossed:
            middle = sides[0].mean() - sum(side.mean() for side in sides[1:])
            assert interval.high - interval.low == pytest.approx(recomputed.crossed_width(*sides), rel=1e-9)
            below = (middle - interval.low) / (interval.high - interval.low)
            assert below == pytest.approx(recomputed.lean(*sides, seed=1), abs=0.07)


def test_gain_that_would_have_been_seen_is_that_of_the_variance_components(stores: Stores) -> None:
    sides = [stores.matrix(stores.roles[role]) for role in ("winner", "best unregularized")]
    expected = recomputed.detectable(*sides)
    assert statistics.compare(sides[0], sides[1], seed=0).detectable == pytest.approx(expected, rel=1e-9)
    if "Not shown:" in stores.said.sections["answer"]:  # which of the three it is, the machine's rounding decides
        assert f"a gain of {100 * expected:.1f} points would be seen in 80 % of cases" in stores.said.sections["answer"]


def test_chance_that_a_run_is_better_has_percentiles_of_all_resampled_seeds(stores: Stores) -> None:
    """The bootstrap's ends lie at percentiles 1.5 to 3.5 and 96.5 to 98.5 of all resamples, each with its chance."""
    winner = stores.matrix(stores.roles["winner"]).mean(1)
    for role, name in stores.roles.items():
        if name == stores.roles["winner"]:
            continue
        other = stores.matrix(name).mean(1)
        wins = np.sign(winner[:, None] - other[None, :]) / 2 + 0.5
        drawn = [
            np.array(list(itertools.combinations_with_replacement(range(len(m)), len(m)))) for m in (winner, other)
        ]
        chance = [
            np.array([math.factorial(len(row)) / math.prod(map(math.factorial, Counter(row).values())) for row in rows])
            for rows in (d.tolist() for d in drawn)
        ]
        counts = [np.array([np.bincount(row, minlength=len(rows[0])) for row in rows]) for rows in drawn]
        shares = (counts[0] @ wins @ counts[1].T).ravel() / wins.size
        order = np.argsort(shares)
        below = np.cumsum(np.outer(*chance).ravel()[order]) / math.prod(c.sum() for c in chance)
        least, low, high, most = (shares[order][np.searchsorted(below, q)] for q in (0.015, 0.035, 0.965, 0.985))
        told = [float(end) / 100 for end in re.findall(r"[\d.]+(?=[,\]])", stores.said.rows(LEADS)[role][3])]
        assert least - 0.0006 <= told[0] <= low + 0.0006
        assert high - 0.0006 <= told[1] <= most + 0.0006


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
    complete = stores.study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
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


def test_bins_of_the_dose_response_are_drawn_at_their_trials_means_and_intervals(stores: Stores) -> None:
    for name, n in (("dropout", 5), ("batch_norm", 1)):
        title = f"Validation accuracy by {name}"
        picture, told = Picture(stores.html, title), stores.said.charts[title]
        doses = [(float(trial.user_attrs[f"effective_{name}"]), value) for trial, value in stores.trials()]
        found = recomputed.bins(doses, n=n)
        assert found[0][0] is None
        for said, (_, mean, _, _) in zip(re.findall(r": ([\d.]+) %", told), found, strict=True):
            assert tells(said, mean)
        at = [picture.x_ticks["off"], *_places(picture, [middle for middle, *_ in found if middle is not None])]
        means, low, high = (picture.y([100 * value for value in ends]) for ends in list(zip(*found, strict=True))[1:])
        assert picture.circles("estimate")[:, :2] == pytest.approx(np.column_stack([at, means]), abs=0.1)
        assert picture.lines("whisker") == pytest.approx(np.column_stack([at, low, high]), abs=0.1)


def _places(picture: Picture, doses: list[float]) -> list[float]:
    return [picture.x_ticks["on"]] if "on" in picture.x_ticks else picture.x(doses).tolist()


def test_expected_best_is_the_mean_over_all_ways_to_draw_the_trials(stores: Stores) -> None:
    values = [value for trial, value in stores.trials() if not trial.user_attrs["baseline"]]
    rows = stores.said.rows("Expected best against the number of trials")
    assert len(rows) >= 5
    for n, (expected, band) in rows.items():
        best = np.array(sorted(max(chosen) for chosen in itertools.combinations(values, int(n))))
        assert tells(expected, float(best.mean()))
        low, high = (best[max(math.ceil(q * len(best) - 1e-9) - 1, 0)] for q in (0.025, 0.975))
        assert band == ends(low, high)
    first, last = rows["1"][0], percent(max(values))
    assert rows[str(len(values))] == [last, ends(max(values), max(values))]
    said = stores.said.charts["Expected best against the number of trials"]
    assert said == f"From {first} after 1 to {last} after {len(values)} trials."


def test_importance_by_ped_anova_and_its_bootstrap_are_optuna_s(stores: Stores) -> None:
    """Of Optuna's own trials, the pruned ones taken for complete; the same resamples, drawn again from the seed."""
    trials = [
        optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=value)
        for trial, value in stores.trials()
    ]
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / len(trials)))

    def shares(chosen: list[int]) -> list[float]:
        study = optuna.create_study(direction="maximize")
        study.add_trials([trials[i] for i in chosen])
        found = evaluator.evaluate(study)
        total = sum(found.values()) or 1.0
        return [found[name] / total for name in DIGITS["space"]]

    resamples, _ = _resamples(stores)
    _check_importance(stores, "PED-ANOVA", shares([*range(len(trials))]), [shares(chosen) for chosen in resamples])


def test_importance_by_fanova_and_its_bootstrap_are_those_of_forests_asked_on_a_grid(stores: Stores) -> None:
    """The forests are scikit-learn's, of the same seeds; how much each parameter explains is summed over all cells."""
    low, high = DIGITS["space"]["lr"]["low"], DIGITS["space"]["lr"]["high"]
    positions = np.array(
        [
            [
                math.log(trial.params["lr"] / low) / math.log(high / low),
                trial.params["dropout"] / DIGITS["space"]["dropout"]["high"],
                0.75 if trial.params["batch_norm"] else 0.25,
            ]
            for trial, _ in stores.trials()
        ]
    )
    values = np.array([value for _, value in stores.trials()])
    resamples, rng = _resamples(stores)
    seeds = [int(rng.integers(2**32)) for _ in range(1 + len(resamples))]
    whole = recomputed.forest_shares(positions, values, n_trees=64, seed=seeds[0])
    resampled = [
        recomputed.forest_shares(positions[chosen], values[chosen], n_trees=16, seed=seed)
        for chosen, seed in zip(resamples, seeds[1:], strict=True)
    ]
    _check_importance(stores, "fANOVA", whole, resampled)


def _resamples(stores: Stores) -> tuple[list[list[int]], np.random.Generator]:
    values, rng = [value for _, value in stores.trials()], np.random.default_rng(DIGITS["seed"])
    drawn = [rng.integers(0, len(values), len(values)).tolist() for _ in range(200)]
    return [chosen for chosen in drawn if len({values[i] for i in chosen}) > 1], rng


def _check_importance(stores: Stores, method: str, whole: Any, resampled: Any) -> None:
    said = stores.said.charts["Importance of each parameter"]
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    for k, name in enumerate(DIGITS["space"]):
        told = re.search(rf"\b{name}: [^:]*?{method} (\d+) % \[(\d+), (\d+)\]", said)
        assert told, said
        expected = [whole[k], min(low[k], whole[k]), max(high[k], whole[k])]
        assert [float(each) for each in told.groups()] == pytest.approx([100 * e for e in expected], abs=0.5 + 1e-6)


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
        label, gain, p_value, needed = rows[name]
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
        assert needed == (str(_needed(differences.std(ddof=1))) if label.endswith("no evidence") else "–")


def _needed(deviation: float) -> int:
    """The least n of a paired t-test that sees half a point in 80 % of cases."""

    def found(n: int) -> float:
        critical, shift = stats.t.ppf(0.975, n - 1), 0.005 / deviation * math.sqrt(n)
        return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift))

    return next(n for n in range(2, 10_001) if n == 10_000 or found(n) >= 0.8)


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


def test_points_of_the_reliability_diagram_are_the_bins_of_the_stored_outputs(stores: Stores) -> None:
    stored = winner_s(stores)
    logits, targets = (np.concatenate([s[name] for s in stored]) for name in ("outputs", "targets"))
    odds = np.exp(logits.astype(float) - logits.max(1, keepdims=True).astype(float))
    confidence, right = odds.max(1) / odds.sum(1), odds.argmax(1) == targets
    bins = [
        (float(confidence[inside].mean()), float(right[inside].mean()), float(inside.mean()))
        for inside in ((confidence > k / 15) & (confidence <= (k + 1) / 15) for k in range(15))
        if inside.any()
    ]
    told = "; ".join(f"confidence {percent(c)}: {percent(a)} correct" for c, a, _ in bins)
    assert stores.said.charts["Share correct against confidence"] == told
    picture, (sure, correct, shares) = Picture(stores.html, "Share correct against confidence"), zip(*bins, strict=True)
    at, up, down = picture.x(100 * np.array(sure)), picture.y(100 * np.array(correct)), picture.y(100 * np.array(sure))
    drawn = picture.circles("bin")
    assert drawn[:, :2] == pytest.approx(np.column_stack([at, up]), abs=0.1)
    assert picture.lines("whisker") == pytest.approx(np.column_stack([at, up, down]), abs=0.1)
    line = np.polyfit(np.sqrt(shares), drawn[:, 2], 1)  # the more examples, the larger: by area, above a least size
    assert line[0] > 1
    assert np.polyval(line, np.sqrt(shares)) == pytest.approx(drawn[:, 2], abs=0.1)


# ---------------------------------------------------------------- cost and provenance


def _seconds(told: str) -> float:
    units = {"h": 3600, "min": 60, "s": 1}
    words = told.split()
    return sum(float(n) * units[unit] for n, unit in zip(words[::2], words[1::2], strict=True))


def test_cost_is_that_of_the_ledger_s_rows(stores: Stores) -> None:
    rows = stores.said.rows("What each phase cost")
    assert list(rows) == ["search", "confirm-1", "ablate-1"]
    for name, (n, epochs, wall, trainer, an_hour) in rows.items():
        phase = "" if name == "search" else name
        runs = [run for run in stores.runs.values() if run.phase == phase]
        assert int(n) == len(runs)
        assert int(epochs.replace(",", "")) == sum(max(r["epoch"] for r in run.epochs) for run in runs)
        (opened,), (closed,) = stores.of("SessionOpened", phase), stores.of("SessionClosed", phase)
        assert _seconds(wall) == pytest.approx(closed["at"] - opened["at"], rel=0.01, abs=0.51)
        expected = len(runs) / (closed["at"] - opened["at"]) * 3600
        assert float(an_hour.replace(",", "")) == pytest.approx(expected, rel=0.001, abs=0.51)
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

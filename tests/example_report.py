"""A report with plausible, invented numbers, for tests of the page and for looking at it."""

import math
import random
from collections.abc import Mapping, Sequence

from search.diagnosis import REMEDIES, Label
from search.findings import (
    Ablated,
    Ablation,
    Calibration,
    Candidate,
    Confirmation,
    Confusions,
    Cost,
    Diagnosed,
    Difference,
    Dose,
    Effect,
    Found,
    Importance,
    Learning,
    Measure,
    Recall,
    Report,
    Role,
    Row,
    Setting,
    UseOfTestSet,
)

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECALLS = (0.66, 0.69, 0.44, 0.37, 0.49, 0.47, 0.66, 0.63, 0.71, 0.62)
N_SEEDS = 13
DIAGNOSES: Mapping[Label, int] = {"healthy": 74, "overfit": 61, "underfit": 38, "still improving": 21, "diverged": 6}
BIN_SHARES = (0.01, 0.07, 0.13, 0.15, 0.14, 0.13, 0.12, 0.11, 0.14)
BUDGETS = (1, 2, 3, 5, 8, 12, 20, 30, 40, 60, 80, 100, 130, 160, 200)


def example_report(*, n_trials: int = 200) -> Report:
    """Everything there can be, of a study like cifar_reg."""
    draw = random.Random(6)
    return Report(
        study="cifar_reg",
        title="Regularizing an MLP on CIFAR-10",
        question="Which regularization, at what strength, makes a multilayer perceptron generalize best on CIFAR-10?",
        written="2026-03-14",
        measure=Measure(name="accuracy", percent=True),
        found=Found(trial=23, value=0.5894, n_trials=n_trials, n_examples=5000),
        confirmation=_confirmation(),
        settings=_settings(),
        best=_best(draw),
        ablation=_ablation(),
        doses=_doses(draw, n_trials),
        best_curves=[
            _learning(draw, f"Trial {number}", f"{percent} %", 0.35)
            for number, percent in ((23, 58.9), (31, 58.6), (17, 58.3), (38, 58.2), (12, 57.9))
        ],
        typical_curves=[
            _learning(draw, "Overfit", "trial 0", 1.25),
            _learning(draw, "Healthy", "trial 23", 0.35),
            _learning(draw, "Underfit", "trial 9", 0.0, pace=0.18),
            _learning(draw, "Still improving", "trial 14", 0.0, pace=0.3),
            Learning(
                title="Diverged",
                note="trial 5",
                best_epoch=1,
                train=[(0, 2.31), (1, 2.2), (2, 2.9), (3, math.inf)],
                val=[(0, 2.31), (1, 2.25), (2, 3.1), (3, math.nan)],
            ),
        ],
        diagnoses=[Diagnosed(label=label, count=count, remedy=REMEDIES[label]) for label, count in DIAGNOSES.items()],
        importance=[
            Importance(parameter="lr", ped_anova=(0.31, (0.22, 0.41)), fanova=(0.38, (0.25, 0.52))),
            Importance(parameter="batch_norm", ped_anova=(0.24, (0.15, 0.33)), fanova=(0.19, (0.1, 0.3))),
            Importance(parameter="dropout", ped_anova=(0.16, (0.09, 0.24)), fanova=(0.11, (0.05, 0.2))),
            Importance(parameter="flip", ped_anova=(0.13, (0.07, 0.2)), fanova=(0.09, (0.03, 0.16))),
            Importance(parameter="weight_decay", ped_anova=(0.09, (0.03, 0.16)), fanova=(0.14, (0.06, 0.24))),
            Importance(parameter="width", ped_anova=(0.05, (0.01, 0.1)), fanova=None),
        ],
        warnings=[
            "The best trials have width 1024, within 5 % of the upper bound: widen it and search again.",
            "14 of 200 trials diverged, all with lr above 0.01: lower the upper bound of lr to 0.01.",
        ],
        expected_best=[(n, 0.592 - 0.07 * n**-0.5, 0.592 - 0.12 * n**-0.55, 0.594 - 0.025 * n**-0.5) for n in BUDGETS],
        confusion=_confusion(draw),
        calibration=Calibration(
            bins=[
                (confidence, 0.02 + 0.94 * confidence, share)
                for confidence, share in zip((k / 10 + 0.05 for k in range(1, 10)), BIN_SHARES, strict=True)
            ],
            ece=0.0272,
            ece_interval=(0.0221, 0.0325),
            nll=1.2138,
            nll_interval=(1.2012, 1.2263),
        ),
        cost=Cost(n_trials=200, epochs_trained=1138, epochs_saved=662, wall_s=5025.0, trainer_s=9893.0),
        phase_costs=[
            ("confirm-1", Cost(n_trials=80, epochs_trained=720, epochs_saved=0, wall_s=4100.0, trainer_s=8100.0))
        ],
        provenance=[
            ("Data", "cifar10, sha256 6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),
            ("Split", "45,000 for training, 5,000 for validation, stratified, seed 0; 10,000 test images apart"),
            ("Versions", "torch 2.11.0, optuna 5.0.0, mlflow 3.17.0, Python 3.12.4"),
            ("Device", "CPU, 2 cores, bf16 training, float32 evaluation"),
            ("Commit", "e3db728c01b2"),
            ("Seeds", "search 0; confirmation 1000 to 1003 (selection), 1004 to 1016 (final)"),
        ],
        test_uses=[UseOfTestSet(date="2026-03-14 10:12", purpose="confirm-1: the four finalists", n_networks=52)],
        commands=[
            "python -m search.run --study cifar_reg",
            "python -m search.confirm --study cifar_reg",
            "python -m search.ablate --study cifar_reg",
            "python -m search.report --study cifar_reg",
        ],
    )


def _confirmation() -> Confirmation:
    def candidate(role: Role, name: str, mean: float, half: float, seeds: float, deviation: float) -> Candidate:
        return Candidate(
            role=role,
            name=name,
            mean=mean,
            deviation=deviation,
            interval=(mean - half, mean + half),
            seeds_interval=(mean - seeds, mean + seeds),
            n_seeds=N_SEEDS,
        )

    def difference(
        against: Role, gain: float, half: float, probability: float, least: float, verdict: str
    ) -> Difference:
        return Difference(
            against=against,
            difference=gain,
            interval=(gain - half, gain + half),
            seeds_interval=(gain - half / 2, gain + half / 2),
            probability=probability,
            probability_interval=(least, min(1.0, 2 * probability - least)),
            verdict=verdict,
        )

    return Confirmation(
        answer="confirmed",
        sentence=(
            "dropout 0.21 + weight decay 3e-3 + BatchNorm gains 4.1 points of test accuracy over the best "
            "unregularized network (95 % interval 3.3 to 4.9, 13 fresh seeds each, 10,000 test images used once)."
        ),
        baseline_sentence="Against the baseline it is 5.6 points (4.7 to 6.5); 1.5 of them are the learning rate’s.",
        take="trial 23. Its lead over the runner-up, trial 31, is real: 0.6 points (0.1 to 1.1).",
        optimism=0.0171,
        candidates=[
            candidate("winner", "trial 23", 0.5723, 0.0081, 0.0027, 0.0045),
            candidate("runner-up", "trial 31", 0.5664, 0.0083, 0.0031, 0.0051),
            candidate("baseline", "baseline", 0.5161, 0.009, 0.0045, 0.0075),
            candidate("best unregularized", "lr 0.003", 0.5312, 0.0088, 0.0038, 0.0063),
        ],
        differences=[
            difference("best unregularized", 0.0411, 0.0081, 0.999, 0.982, "regularization helps: confirmed"),
            difference("baseline", 0.0562, 0.0091, 1.0, 0.988, "better than the baseline: confirmed"),
            difference("runner-up", 0.0059, 0.0051, 0.81, 0.61, "take the winner"),
        ],
        power="8 seeds instead of 13: an effect of 1.5 deviations would be found in 80 %.",
    )


def _settings() -> list[Setting]:
    def regularizer(name: str, winner: str = "", *, on: bool = True) -> Setting:
        return Setting(name=name, baseline="", winner=winner, regularizer=True, winner_on=on)

    return [
        Setting(name="lr", baseline="0.001", winner="0.00412"),
        Setting(name="width", baseline="512", winner="1024"),
        Setting(name="depth", baseline="3", winner="3"),
        regularizer("batch_norm"),
        regularizer("dropout", "0.21"),
        regularizer("weight_decay", "0.003"),
        regularizer("flip"),
        regularizer("shift", "2"),
        regularizer("label_smoothing", on=False),
        regularizer("l1", on=False),
        regularizer("l2", on=False),
    ]


def _best(draw: random.Random) -> list[Row]:
    return [
        Row(
            trial=trial,
            value=0.5894 - 0.0021 * k,
            best_epoch=9 - k % 3,
            diagnosis=draw.choice(["healthy", "healthy", "overfit", "still improving"]),
            settings=[
                f"{draw.uniform(0.002, 0.006):.3g}",
                "1024",
                "3",
                "true",
                f"{draw.uniform(0.1, 0.3):.2g}",
                f"{draw.uniform(1e-3, 6e-3):.2g}",
                "true",
                str(draw.randint(1, 3)),
                *"000",
            ],
        )
        for k, trial in enumerate((23, 31, 17, 38, 12, 29, 35, 8, 40, 27))
    ]


def _ablation() -> Ablation:
    def row(name: str, gain: float, half: float, effect: Effect, p: float, seeds: int | None = None) -> Ablated:
        return Ablated(
            name=name, gain=gain, interval=(gain - half, gain + half), effect=effect, seeds_needed=seeds, p_value=p
        )

    return Ablation(
        rows=[
            row("batch_norm", 0.0213, 0.0062, "helps", p=0.0002),
            row("flip", 0.0142, 0.0051, "helps", p=0.0011),
            row("dropout", 0.0088, 0.0054, "helps", p=0.018),
            row("shift", 0.0041, 0.0065, "no evidence", seeds=37, p=0.41),
            row("weight_decay", 0.0004, 0.0031, "equivalent", p=0.8),
            row("the remaining set", -0.0072, 0.0048, "hurts", p=0.024),
        ],
        interactions=[
            row("batch_norm × dropout", -0.0061, 0.0058, "hurts", p=0.04),
            row("batch_norm × flip", 0.0022, 0.0055, "no evidence", seeds=61, p=0.55),
            row("dropout × flip", -0.0008, 0.0052, "no evidence", seeds=210, p=0.76),
        ],
        n_seeds=10,
        margin=0.005,
    )


def _doses(draw: random.Random, n_trials: int) -> list[Dose]:
    def dose(
        name: str, low: float, high: float, best: float | None, winner: float | None, *, log: bool = False
    ) -> Dose:
        points: list[tuple[float | None, float, bool]] = []
        for _ in range(n_trials):
            share = draw.random()
            at = None if draw.random() < 0.25 else low * (high / low) ** share if log else low + (high - low) * share
            peak = 0.1 if best is None else best
            value = 0.555 - 0.09 * ((0 if at is None else share) - peak) ** 2 + draw.gauss(0, 0.012)
            pruned = draw.random() < 0.45
            points.append((at, value - (draw.random() * 0.09 if pruned else 0), pruned))
        return Dose(parameter=name, points=points, trend=_binned(points, low, high, log=log), log=log, winner=winner)

    switches = [
        Dose(
            parameter=name,
            switch=True,
            winner=1.0,
            points=[
                (1.0 if k % 2 else None, 0.52 + gain * (k % 2) + draw.gauss(0, 0.015), k % 5 == 0)
                for k in range(n_trials)
            ],
            trend=[(None, 0.52, 0.515, 0.525), (1.0, 0.52 + gain, 0.515 + gain, 0.525 + gain)],
        )
        for name, gain in (("batch_norm", 0.025), ("flip", 0.016))
    ]
    return [
        dose("dropout", 0.0, 0.6, 0.35, 0.21),
        dose("weight_decay", 1.78e-5, 1e-1, 0.6, 0.003, log=True),
        *switches,
        dose("shift", 1, 4, 0.5, 2),
        dose("label_smoothing", 0.0, 0.2, 0.3, None),
        dose("l1", 1e-6, 1e-3, None, None, log=True),
        dose("l2", 1.78e-5, 1e-1, None, None, log=True),
    ]


def _binned(
    points: Sequence[tuple[float | None, float, bool]], low: float, high: float, *, log: bool
) -> list[tuple[float | None, float, float, float]]:
    def row(at: float | None, values: list[float]) -> tuple[float | None, float, float, float]:
        mean = sum(values) / len(values)
        half = 2 * math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) / len(values))
        return at, mean, mean - half, mean + half

    def share(at: float) -> float:
        return math.log(at / low) / math.log(high / low) if log else (at - low) / (high - low)

    trend = [row(None, [v for at, v, pruned in points if at is None and not pruned])]
    for k in range(5):
        values = [v for at, v, pruned in points if at is not None and not pruned and k <= 5 * share(at) < k + 1]
        middle = (k + 0.5) / 5
        if values:
            trend.append(row(low * (high / low) ** middle if log else low + (high - low) * middle, values))
    return trend


def _learning(draw: random.Random, title: str, note: str, overfit: float, *, pace: float = 0.9) -> Learning:
    """Losses that fall, and a validation loss that rises again where it overfits."""
    train = [
        (e, 0.55 + 1.75 * math.exp(-pace * e / 2.2) - 0.035 * e * overfit + draw.gauss(0, 0.01)) for e in range(10)
    ]
    val = [
        (e, 1.12 + 1.18 * math.exp(-pace * e / 1.6) + 0.007 * overfit * e * e + draw.gauss(0, 0.012)) for e in range(10)
    ]
    return Learning(title=title, note=note, train=train, val=val, best_epoch=min(val, key=lambda p: p[1])[0])


def _confusion(draw: random.Random) -> Confusions:
    total, counts = 1000 * N_SEEDS, []
    for k, recall in enumerate(RECALLS):
        weights = [
            draw.uniform(0.2, 1) * (4 if {k, j} in ({3, 5}, {1, 9}, {0, 8}) else 1) if j != k else 0 for j in range(10)
        ]
        row = [round(total * (1 - recall) * w / sum(weights)) for w in weights]
        row[k] = total - sum(row)
        counts.append(row)
    shares = [row[k] / total for k, row in enumerate(counts)]
    recalls = [
        Recall(name=name, recall=share, interval=(share - 0.029, share + 0.028), n=total)
        for name, share in zip(CLASSES, shares, strict=True)
    ]
    return Confusions(counts=counts, recalls=recalls, n_seeds=N_SEEDS)

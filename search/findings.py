"""What a report says: plain texts, numbers and computed results; `Report` is all of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Interval = tuple[float, float]
Curve = Sequence[tuple[float, float]]
Role = Literal["winner", "runner-up", "baseline", "best unregularized"]
Effect = Literal["helps", "hurts", "equivalent", "no evidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What is judged, and how its numbers are written."""

    name: str
    """As a reader says it, without the set it is measured on: "accuracy"."""
    percent: bool
    """A share, told in % and its differences in points; else told as a plain number."""
    maximize: bool = True
    on: str = "validation"
    """What the search measured it on: "validation", "training" or "published test" examples."""

    def told(self, value: float) -> str:
        return f"{fixed(100 * value, 1)}\N{NO-BREAK SPACE}%" if self.percent else number(value)

    def gain(self, value: float) -> str:
        told = fixed(100 * value, 1) if self.percent else f"{value:.3g}".replace("-", "−")
        return told if told.startswith("−") else f"+{told}"

    def tick(self, value: float) -> str:
        """For an axis whose unit is said once: no unit, no needless digit."""
        return f"{100 * value if self.percent else value:.4g}".replace("-", "−")

    @property
    def searched(self) -> str:
        """What the search judged by: "validation accuracy"."""
        return f"{self.on} {self.name}"

    @property
    def unit(self) -> str:
        return "%" if self.percent else ""

    @property
    def points(self) -> str:
        return "points" if self.percent else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A configuration of the final comparison."""

    role: Role
    name: str
    mean: float
    deviation: float
    interval: Interval
    """Over seeds and test examples."""
    seeds_interval: Interval
    n_seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How much better the winner is than another candidate: winner minus other, of a loss the other way round."""

    against: Role
    difference: float
    interval: Interval
    seeds_interval: Interval
    probability: float
    """That one run of the winner is better than one of the other."""
    probability_interval: Interval
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What fresh seeds on fresh examples said."""

    answer: Literal["confirmed", "not shown", "it hurts"]
    sentence: str
    """After "Yes:", "Not shown:" or "No:"; whole, with its numbers."""
    baseline_sentence: str
    take: str
    """Which one to take, and why."""
    optimism: float
    """How much too good the search's own best looked; negative where it looked too bad."""
    candidates: Sequence[Candidate]
    """Winner, runner-up, baseline, best unregularized; those there are."""
    differences: Sequence[Difference]
    power: str = ""
    """Of a reduced run: what its fewer seeds can still find."""
    lost: Sequence[str] = ()
    """What gave no value and is missing, a sentence each."""
    earlier: Sequence[str] = ()
    """What confirmations before this one said, a sentence each."""

    @property
    def winner(self) -> Candidate:
        return next(each for each in self.candidates if each.role == "winner")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the search itself said: the number that flatters."""

    trial: int
    value: float
    n_trials: int
    n_examples: int
    """Those it was chosen by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One hyperparameter of the baseline and of the winner, in words."""

    name: str
    baseline: str
    winner: str
    regularizer: bool = False
    baseline_on: bool = False
    winner_on: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One of the best trials; its settings in the order of the report's `settings`."""

    trial: int
    value: float
    best_epoch: int
    diagnosis: str
    settings: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablated:
    """What a regularizer, or an interaction, gains: with it minus without it, on the same seeds."""

    name: str
    gain: float
    interval: Interval
    effect: Effect
    seeds_needed: int | None = None
    """Where there is no evidence: so many seeds would settle it."""
    p_value: float | None = None
    """After Holm's correction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    rows: Sequence[Ablated]
    interactions: Sequence[Ablated]
    """Of the full factorial; empty where there was none."""
    n_seeds: int
    margin: float
    power: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dose:
    """How the search's value depends on one regularizer's strength."""

    parameter: str
    points: Sequence[tuple[float | None, float, bool]]
    """(dose, value, pruned) of each trial; None is off."""
    trend: Sequence[tuple[float | None, float, float, float]]
    """(dose, mean, low, high) of each bin, from weak to strong; None is off."""
    log: bool = False
    switch: bool = False
    """Only on or off: a dose of 1 is on."""
    winner: float | None = None
    """The winner's dose; None is off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """One trial's losses by epoch."""

    title: str
    note: str
    train: Curve
    val: Curve
    best_epoch: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosed:
    label: str
    count: int
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Shares of the variance, with bootstrap intervals; None where the method had too few trials."""

    parameter: str
    ped_anova: tuple[float, Interval] | None
    fanova: tuple[float, Interval] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    name: str
    recall: float
    interval: Interval
    """Wilson's, over the class's test examples: the seeds' networks saw the same ones."""
    n: int
    """The class's test examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusions:
    """The winner's test predictions, summed over seeds: counts [true][predicted]."""

    counts: Sequence[Sequence[int]]
    recalls: Sequence[Recall]
    n_seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Of the winner on the test set, over its seeds."""

    bins: Sequence[tuple[float, float, float]]
    """(confidence, accuracy, share of examples) of each bin that holds any."""
    ece: float
    ece_interval: Interval
    nll: float
    nll_interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of the search, or of a phase."""

    n_trials: int
    """Those with an outcome."""
    epochs_trained: int
    """Interrupted attempts included."""
    epochs_saved: int
    """By pruning."""
    wall_s: float
    """Summed over the sessions."""
    trainer_s: float
    """Summed over the trainers: in which they had anything to train."""

    @property
    def trials_per_hour(self) -> float:
        return 3600 * self.n_trials / self.wall_s if self.wall_s > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UseOfTestSet:
    """One entry of the test set's ledger."""

    date: str
    purpose: str
    n_networks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that the page says. What is None, or empty, is left out, or the page says which command would fill it."""

    study: str
    title: str
    question: str
    written: str
    """A date."""
    measure: Measure
    """Of the search and of the test set alike."""
    so_far: str = ""
    """What is not finished yet; empty where all is."""
    unconfirmable: str = ""
    """Why this study cannot be confirmed, and what to do; empty where it can."""
    unablated: str = ""
    """Why there is no ablation, other than that nobody asked for one."""
    found: Found | None = None
    """None before the first complete trial."""
    confirmation: Confirmation | None = None
    settings: Sequence[Setting] = ()
    best: Sequence[Row] = ()
    ablation: Ablation | None = None
    doses: Sequence[Dose] = ()
    best_curves: Sequence[Learning] = ()
    typical_curves: Sequence[Learning] = ()
    diagnoses: Sequence[Diagnosed] = ()
    importance: Sequence[Importance] = ()
    warnings: Sequence[str] = ()
    expected_best: Sequence[tuple[float, float, float, float]] = ()
    """(number of trials, expected best, low, high)."""
    confusion: Confusions | None = None
    calibration: Calibration | None = None
    cost: Cost | None = None
    """Of the search."""
    phase_costs: Sequence[tuple[str, Cost]] = ()
    provenance: Sequence[tuple[str, str]] = ()
    test_uses: Sequence[UseOfTestSet] = ()
    commands: Sequence[str] = ()


def fixed(value: float, digits: int) -> str:
    """Without a minus before what rounds to zero."""
    told = f"{value:.{digits}f}"
    return (told[1:] if told.startswith("-") and not told.strip("-0.") else told).replace("-", "−")


def capitalized(text: str) -> str:
    """For the start of a sentence; the rest stays as it is."""
    return text[:1].upper() + text[1:]


def number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")

"""What the books of a study cost as it grows: asking, the dashboards' stores, the ledger, the coordinator's loop.

    python -m tests.benchmarks.bookkeeping [PART ...] [--sizes N ...]

Nothing is trained: trials follow the model of tests/benchmarks/sampler.py in the space of `cifar_reg`. Every number is
CPU time of this process, so that it holds beside other work. Where its files lie is for TMPDIR to say.
"""

import argparse
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from search import figures, space
from search.contract import Confusion, Value
from search.definition import StudyDefinition, baseline_raw, load
from search.events import AttemptStarted, EpochReported, Event, StudyCreated, TrialAsked, TrialFinished
from search.follower import BATCH, View
from search.ledger import Ledger
from search.mlflow_view import MlflowView
from search.optuna_view import OptunaView, _attributes, _told, _values, open_storage
from search.sampling import Sampling
from search.state import State, Trial, apply, fold
from search.workspace import Workspace
from tests.benchmarks.sampler import ETA, final_accuracy
from tests.histories import put_mlflow_database
from tests.running import coordinate, fake_study

PROJECT = Path(__file__).parents[2]
SIZES = {"asking": (100, 1000, 5000), "views": (100, 1000), "ledger": (5000,), "coordinator": (500, 2000)}
N_CLASSES, N_RUNNING = 10, 4
N_ASKS, N_WRITTEN, LIVE = 7, 40, 100
"""Asks and tells; trials written to a view; events that a view is given at a time where trials are still running."""


def study(n_trials: int, *, epochs: int) -> StudyDefinition:
    return load("cifar_reg", Workspace(PROJECT), {"n_trials": n_trials, "epochs": epochs})


# ---------------------------------------------------------------- what has happened


@dataclass(slots=True)
class Made:
    """Makes trials one after another, each finished before the next is asked."""

    definition: StudyDefinition
    rungs: Mapping[int, list[float]]
    """Where trials end that are not among the best of those before; without any, all are complete."""
    random: random.Random
    n: int = 0

    def created(self) -> StudyCreated:
        facts = {"classes": [str(k) for k in range(N_CLASSES)], "data_set": "made", "n_validation": 5000}
        return StudyCreated(
            at=0,
            study=self.definition.name,
            definition=self.definition.model_dump(mode="json"),
            fingerprint="",
            precision="float32",
            facts=facts,
            versions={},
            commit="",
        )

    def trial(self, *, raw: Mapping[str, Value] | None = None, until: int | None = None) -> Iterator[Event]:
        """Yield the next trial's events; if `until` is given, it is in training after that epoch."""
        number, at, definition = self.n, 100.0 * self.n, self.definition
        self.n += 1
        raw = raw or (self._drawn() if number else baseline_raw(definition))
        effective = {**definition.fixed, **space.effective(definition.space, raw)}
        yield TrialAsked(at=at, trial=number, raw=raw, hyperparameters=effective, baseline=number == 0)
        yield AttemptStarted(at=at, trial=number, attempt=1, trainer=0, device="cpu", structure="mlp", alone=False)
        final, best = final_accuracy(effective) / 100, (0.0, 0)
        for epoch in range(definition.epochs + 1):
            accuracy = final * (1 - 0.7 ** (epoch + 1)) + self.random.gauss(0, 0.004)
            yield self._report(number, at + epoch, epoch, accuracy)
            best = max(best, (accuracy, epoch)) if epoch else best
            if epoch == until:
                return
            if until is None and epoch in self.rungs and not self._passes(epoch, accuracy) and number:
                break
        outcome, reason = ("complete", "epochs") if epoch == definition.epochs else ("pruned", "rung")
        yield TrialFinished(
            at=at + epoch,
            trial=number,
            attempt=1,
            outcome=outcome,  # type: ignore[arg-type]
            reason=reason,  # type: ignore[arg-type]
            value=best[0],
            best_epoch=best[1],
        )

    def _drawn(self) -> dict[str, Value]:
        kinds = kinds_of(self.definition)
        sampler = optuna.samplers.RandomSampler(seed=self.random.randrange(2**32))
        drawn = {name: sampler.sample_independent(None, None, name, kind) for name, kind in kinds.items()}  # type: ignore[arg-type]
        return {name: getattr(value, "item", lambda value=value: value)() for name, value in drawn.items()}

    def _passes(self, rung: int, accuracy: float) -> bool:
        values = self.rungs[rung]
        values.append(accuracy)
        return sum(other > accuracy for other in values) < max(1, len(values) // ETA)

    def _report(self, number: int, at: float, epoch: int, accuracy: float) -> EpochReported:
        loss = 2.5 * (1 - accuracy)
        metrics = {"train_loss": loss * 0.9, "val_loss": loss, "train_accuracy": accuracy, "val_accuracy": accuracy}
        metrics |= {"penalty": 0.01, "lr": 1e-3, "val_loss_se": 0.02}
        counts = _counts(accuracy, self.random)
        return EpochReported(at=at, trial=number, attempt=1, epoch=epoch, metrics=metrics, confusion=counts)


def _counts(accuracy: float, rng: random.Random) -> Confusion:
    """500 examples of each class."""
    right = round(500 * accuracy)
    wrong = (500 - right) // (N_CLASSES - 1)
    return tuple(tuple(right if j == k else wrong + rng.randrange(3) for j in range(N_CLASSES)) for k in range(10))


def kinds_of(definition: StudyDefinition) -> dict[str, BaseDistribution]:
    return {name: space.distribution(parameter) for name, parameter in definition.space.items()}


def frozen(trial: Trial, kinds: Mapping[str, BaseDistribution], metric: str) -> FrozenTrial:
    """The trial as Optuna has it."""
    outcome, value = _told(trial) if trial.outcome else (TrialState.RUNNING, None)
    return create_trial(
        state=outcome,
        value=value,
        params=dict(trial.raw),
        distributions=dict(kinds),
        user_attrs=_attributes(trial),
        intermediate_values=_values(trial, metric),
    )


# ---------------------------------------------------------------- the parts


def cpu_ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)


def asking(n: int, folder: Path) -> dict[str, float]:
    """Milliseconds of an ask and a tell, in a study with so many finished trials and four in training."""
    definition = study(n + N_RUNNING + N_ASKS, epochs=9)
    made = Made(definition, {1: [], 3: []}, random.Random(0))
    state = fold([made.created()])
    for _ in range(n):
        fold(made.trial(), state)
    for _ in range(N_RUNNING):
        fold(made.trial(until=2), state)
    found: list[Sampling] = []
    resume = cpu_ms(lambda: found.append(Sampling(definition, state)))
    sampling, asks, tells = found[0], list[float](), list[float]()
    for number in range(n + N_RUNNING, n + N_RUNNING + N_ASKS):
        raws: list[dict[str, Value]] = []
        asks.append(cpu_ms(lambda number=number, raws=raws: raws.append(sampling.ask(number, state.running))))  # type: ignore[misc]
        fold(made.trial(raw=raws[0]), state)
        tells.append(cpu_ms(partial(sampling.tell, state.trials[number])))
    told = {
        "trials with a value": float(len(state.with_outcome("complete"))),
        "ask": statistics.median(asks),
        "tell": statistics.median(tells),
        "rebuild": resume,
    }
    return told | {f"Optuna's default TPE, {name}": ms for name, ms in _default(definition, state).items()}


def _default(definition: StudyDefinition, state: State) -> dict[str, float]:
    kinds = kinds_of(definition)
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, constant_liar=True)
    each = optuna.create_study(direction=definition.direction, sampler=sampler)
    each.add_trials([frozen(trial, kinds, definition.metric) for trial in state.trials.values()])
    asks, tells = list[float](), list[float]()
    for _ in range(N_ASKS):
        trials: list[optuna.Trial] = []
        asks.append(cpu_ms(lambda trials=trials: trials.append(each.ask(kinds))))  # type: ignore[misc]
        tells.append(cpu_ms(partial(each.tell, trials[0], 0.4)))
    return {"ask": statistics.median(asks), "tell": statistics.median(tells)}


def views(n: int, folder: Path) -> dict[str, float]:
    """Milliseconds a trial of 20 reports, by the store that it is written to, where there are so many before."""
    definition = study(n + 2 * N_WRITTEN, epochs=19)
    made = Made(definition, {}, random.Random(0))
    created = made.created()
    events: list[Event] = [created, *(event for _ in range(n + 2 * N_WRITTEN) for event in made.trial())]
    places, state = Workspace(folder), fold(events)
    put_mlflow_database(places.mlruns)
    pictures = places.figures(definition.name)
    found = _drawn(pictures, list(state.trials.values()), created, n)
    mlflow = MlflowView(definition.name, places.mlflow_url, places.mlflow_artifacts, places.study(definition.name))
    ours = OptunaView(definition.name, places.optuna_url, places.optuna_artifacts, pictures, mlflow.run_url)
    for view in (ours, mlflow):  # Optuna's first: without addresses of runs, as the others
        at_once, live = _written(view, events, n)
        found |= {f"{view.name} view, {BATCH} events at a time": at_once, f"{view.name} view, {LIVE} at a time": live}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        journal = JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    stores: dict[str, BaseStorage] = {
        "RDBStorage, SQLite": open_storage(places.optuna_url),
        "JournalStorage": journal,
    }
    trials = list(state.trials.values())
    for name, storage in stores.items():
        told, added = _plain(storage, definition, trials)
        found |= {f"{name}, ask, report, tell": told, f"{name}, add_trial": added}
    return found


def _drawn(folder: Path, trials: Sequence[Trial], created: StudyCreated, n: int) -> dict[str, float]:
    """Draw the pictures of the trials from the n-th on; of those before, files stand for them."""
    draw = {
        "confusion matrix, drawn": lambda trial: figures.confusion_file(folder, trial, created.facts["classes"]),
        "learning curves, drawn": lambda trial: figures.curves_file(folder, trial),
    }
    found = {
        name: statistics.median([cpu_ms(partial(each, trial)) for trial in trials[n:]]) for name, each in draw.items()
    }
    for number in range(n):
        shutil.copytree(folder / f"trial_{n:04d}_attempt_1", folder / f"trial_{number:04d}_attempt_1")
    return found


def _written(view: View, events: Sequence[Event], n: int) -> tuple[float, float]:
    """Milliseconds a trial behind the first n: as the follower gives them at once, and as they come."""
    view.prepare()
    created = events[0]
    assert isinstance(created, StudyCreated)
    view.open(created)
    state, numbered = State(), enumerate(events, start=1)

    def take(n_trials: int, batch: int) -> float:
        """Milliseconds of CPU time for what comes until so many trials are finished."""
        total = 0.0
        while len(state.finish_order) < n_trials and (some := list(islice(numbered, batch))):
            for _, event in some:
                apply(state, event)
            total += cpu_ms(partial(view.take, some, state))
        return total

    def a_trial(batch: int, n_more: int) -> float:
        before = len(state.finish_order)
        total = take(before + n_more, batch)
        return total / (len(state.finish_order) - before)

    take(n, BATCH)
    live = a_trial(LIVE, N_WRITTEN // 2)
    return a_trial(BATCH, N_WRITTEN), live


def _plain(storage: BaseStorage, definition: StudyDefinition, trials: Sequence[Trial]) -> tuple[float, float]:
    """Milliseconds a trial through Optuna's own functions, one by one behind those: as it is trained, and at once."""
    kinds = kinds_of(definition)
    each = optuna.create_study(
        study_name=definition.name,
        storage=storage,
        direction=definition.direction,
        sampler=optuna.samplers.RandomSampler(),
        load_if_exists=True,  # in Optuna's tables our view has written them
    )
    given = [frozen(trial, kinds, definition.metric) for trial in trials]
    for trial in given[len(each.trials) :]:
        storage.create_new_trial(each._study_id, template_trial=trial)
    _train(each, given[0], kinds)  # whatever is read once
    told = [cpu_ms(partial(_train, each, trial, kinds)) for trial in given[:8]]
    added = [cpu_ms(partial(each.add_trial, trial)) for trial in given[8:16]]
    return statistics.median(told), statistics.median(added)


def _train(each: optuna.Study, given: FrozenTrial, kinds: Mapping[str, BaseDistribution]) -> None:
    trial = each.ask(dict(kinds))
    for epoch, value in given.intermediate_values.items():
        trial.report(value, epoch)
    for name, attribute in given.user_attrs.items():
        trial.set_user_attr(name, attribute)
    each.tell(trial, given.value)


def ledger(n: int, folder: Path) -> dict[str, float]:
    """Of n trials of 10 reports: appended a report at a time and a trial at a time, read and folded, and their size."""
    definition = study(n, epochs=9)
    made = Made(definition, {}, random.Random(0))
    path = folder / "ledger.db"
    written = Ledger(path, create=True)
    written.append(made.created())
    by_trial = [list(made.trial()) for _ in range(n)]
    cut = min(n, 100)
    one_by_one = cpu_ms(partial(_append, written, [[event] for trial in by_trial[:cut] for event in trial]))
    together = cpu_ms(partial(_append, written, by_trial[cut:]))
    written.close()
    states: list[State] = []
    resumed = cpu_ms(lambda: states.append(fold(Ledger(path).events())))
    assert len(states[0].finish_order) == n
    return {
        "append, ms an event, one a transaction": one_by_one / sum(map(len, by_trial[:cut])),
        "append, ms a trial, one a transaction": together / max(1, n - cut),
        "read and fold all, s": resumed / 1000,
        "kB a trial": path.stat().st_size / n / 1000,
    }


def _append(ledger: Ledger, transactions: Sequence[Sequence[Event]]) -> None:
    for events in transactions:
        ledger.append(*events)


def coordinator(n: int, folder: Path) -> dict[str, float]:
    """Milliseconds a trial of three epochs, of which nothing is training: coordinator, a random sampler, ledger."""
    definition = fake_study(n_trials=n, epochs=3, sampler="random")
    return {"a trial of 4 reports": cpu_ms(lambda: coordinate(definition, folder)) / n}


PARTS: Mapping[str, Callable[[int, Path], dict[str, float]]] = {
    "asking": asking,
    "views": views,
    "ledger": ledger,
    "coordinator": coordinator,
}


def measured(part: str, sizes: Sequence[int]) -> str:
    """The part's table: a row for what was measured, a column for each size."""
    columns = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            columns.append(PARTS[part](n, Path(folder)))
    heads = "".join(f"| {n} trials " for n in sizes)
    rows = [f"| {name} {''.join(f'| {column[name]:.3g} ' for column in columns)}|" for name in columns[0]]
    return "\n".join([f"| {part} {heads}|", "|---" * (len(sizes) + 1) + "|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], default=[])
    parser.add_argument("--sizes", type=int, nargs="+")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for part in given.parts or PARTS:
        print(measured(part, given.sizes or SIZES[part]), flush=True)


if __name__ == "__main__":
    main()

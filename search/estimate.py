"""`--dry-run`: check everything a study needs, and say what it will cost, without creating anything."""

import statistics
from collections.abc import Mapping

from rich.console import Console

from search import result
from search.contract import Estimate, Estimated, Failed, HyperparameterRule, Opened, Value
from search.definition import StudyDefinition, check_objective, hyperparameters, structure
from search.errors import TrainerError
from search.executors import CPU_TRAINER_ENVIRONMENT, Executor, LocalProcesses
from search.flight import slots_wanted
from search.launch import ask, first_order, open_trainer, orders
from search.ledger import Ledger
from search.sampling import Sampling
from search.session import Settings, check_fingerprint, stores
from search.space import extremes, raw_from
from search.state import State, fold
from search.viewer import Viewer

N_SAMPLED = 6
"""Networks drawn from the space for the expected total; each takes about two seconds."""


def dry_run(definition: StudyDefinition, settings: Settings, console: Console) -> int:
    """Print what the study will cost; return the exit status.

    Raises:
        SearchError: whatever would keep the study from running.
    """
    state = _existing(definition, settings)
    viewer = Viewer(stores(definition, settings), on_trouble=console.print)
    executor = LocalProcesses(CPU_TRAINER_ENVIRONMENT)
    try:
        viewer.check()
        first = first_order(definition, settings.data_dir, state)
        opened = open_trainer(executor, first, console)
        viewer.checked()
        console.print("Optuna's storage and MLflow: can be used", highlight=False)
        check_objective(definition, opened.hyperparameters, opened.metrics)
        _describe(opened, console)
        n_trainers = len(orders(definition, first, opened))
        _print_costs(definition, executor, opened, n_trainers, console)
    finally:
        executor.stop()
        viewer.close()
    console.print("Nothing was created. Without --dry-run the study starts.")
    return 0


def _existing(definition: StudyDefinition, settings: Settings) -> State:
    path = settings.workspace.ledger(definition.name)
    if not path.exists():
        return State()
    ledger = Ledger(path)
    state = fold(ledger.events())
    ledger.close()
    check_fingerprint(definition, state)
    return state


def _describe(opened: Opened, console: Console) -> None:
    facts = opened.facts
    console.print(
        f"data: {result.examples(facts)}, "
        f"checksum {facts['checksum']}\ndevice: {opened.device_name}; precision: {opened.probe}",
        highlight=False,
        soft_wrap=True,
    )


def _print_costs(
    definition: StudyDefinition, executor: Executor, opened: Opened, n_trainers: int, console: Console
) -> None:
    rules = opened.hyperparameters
    largest = _estimated(executor, largest_network(definition, rules), rules, console)
    console.print(
        f"largest network: {largest.n_parameters:,} parameters, {largest.memory_bytes / 2**20:,.0f} MiB in a trainer, "
        f"{largest.update_s * 1000:.1f} ms an update, {largest.epoch_s:.1f} s an epoch, "
        f"{slots_wanted(definition, largest.capacity)} of its kind at once",
        highlight=False,
        soft_wrap=True,
    )
    sampling = Sampling(definition.model_copy(update={"sampler": "random"}), State())
    raws = [sampling.ask(number) for number in range(N_SAMPLED + 1)]
    baseline, *others = (
        _estimated(executor, hyperparameters(definition, raw, rules), rules, console).epoch_s for raw in raws
    )
    mean_s = statistics.fmean(others)
    n_epochs = expected_epochs(definition)
    trials_s = (definition.n_trials - 1) * n_epochs * mean_s
    total_s = (baseline * definition.epochs + trials_s) / n_trainers
    console.print(
        f"expected: {definition.n_trials} trials, the baseline of {definition.epochs} epochs at {baseline:.1f} s, the "
        f"others of {n_epochs:.1f} epochs on average with pruning, at {mean_s:.1f} s (mean of {N_SAMPLED} drawn "
        f"networks, one at a time), on {n_trainers} trainer(s): about {_minutes(total_s)} in all",
        highlight=False,
        soft_wrap=True,
    )


def _estimated(
    executor: Executor, settings: Mapping[str, Value], rules: Mapping[str, HyperparameterRule], console: Console
) -> Estimated:
    order = Estimate(hyperparameters=settings, structure=structure(settings, rules))
    reply = ask(executor, order, console)
    if isinstance(reply, Failed):
        raise TrainerError(f"a network of the space cannot be trained here: {reply.error}\n{reply.traceback}")
    assert isinstance(reply, Estimated)
    return reply


def largest_network(definition: StudyDefinition, rules: Mapping[str, HyperparameterRule]) -> Mapping[str, Value]:
    """The baseline with every sampled structural parameter at its upper end: the most a trial can take."""
    baseline = hyperparameters(definition, raw_from(definition.space, definition.baseline), rules)
    upper = {name: extremes(parameter)[-1] for name, parameter in definition.space.items() if rules[name].structural}
    return baseline | upper


def expected_epochs(definition: StudyDefinition) -> float:
    """Epochs of a trial on average, where successive halving lets exactly one in eta pass each rung."""
    pruning = definition.pruning
    if pruning.kind == "none":
        return float(definition.epochs)
    expected, share, rung = 0.0, 1.0, 0
    following = pruning.min_epochs
    while rung < definition.epochs:
        expected += share * (min(following, definition.epochs) - rung)
        rung, following, share = following, following * pruning.eta, share / pruning.eta
    return expected


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"

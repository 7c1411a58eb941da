"""Whole studies as others would run them: Optuna with DataLoaders, and Ray Tune with resident data.

Both search the space of a study file, with its epochs and its split; each epoch's validation accuracy goes to a file.
"""

import json
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset

from objectives import models
from objectives.classification import Classification
from objectives.data import Dataset, load
from objectives.hyperparameters import Value, completed, number
from search import space
from search.contract import Value as RawValue
from search.definition import StudyDefinition
from tests.benchmarks.sides import Setting, accuracy, normalized

Report = Callable[[float, int], bool]
"""Is told the validation accuracy and the epoch; returns whether to stop the trial."""
Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a process of another side is to do."""

    definition: StudyDefinition
    data_dir: Path
    folder: Path
    setting: Setting
    seconds: float


class Diary:
    """A file of (time, validation accuracy), one per process, which outlives it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{os.getpid()}.diary"

    def __call__(self, value: float) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([time.time(), value]) + "\n")


def read_diaries(folder: Path, *, started: float, seconds: float) -> list[tuple[float, float]]:
    """Return (seconds since the start, accuracy) of all processes, within the time."""
    lines = [line for path in folder.glob("*.diary") for line in path.read_text().splitlines()]
    entries = sorted((at - started, value) for at, value in map(json.loads, lines))
    return [(at, value) for at, value in entries if at <= seconds]


# ---------------------------------------------------------------- a trial, as a textbook has it


def train(
    trial: Mapping[str, Value], dataset: Dataset, *, batches: Batches, val: Callable[[nn.Module], float],
    epochs: int, fused: bool, autocast: bool, report: Report,
) -> float:  # fmt: skip
    """Train one network with everything its study may vary; return its last validation accuracy."""
    full = completed(trial, Classification.HYPERPARAMETERS)
    net = models.architecture(full, input_shape=tuple(dataset.x_train.shape[1:]), n_outputs=len(dataset.classes))
    model = models.single(net, dropout=number(full, "dropout"))
    weights, others = ([p for p in model.parameters() if (p.ndim > 1) is wanted] for wanted in (True, False))
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": number(full, "weight_decay")}, {"params": others, "weight_decay": 0.0}],
        lr=number(full, "lr"),
        fused=fused,
    )
    n_updates = len(dataset.y_train) // int(number(full, "batch_size"))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, number(full, "lr"), total_steps=epochs * n_updates, cycle_momentum=False
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=number(full, "label_smoothing"))
    l1, l2, value = number(full, "l1"), number(full, "l2"), math.nan
    for epoch in range(1, epochs + 1):
        model.train()
        for x, y in batches():
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = criterion(model(x), y)
            if l1:
                loss = loss + l1 * sum(p.abs().sum() for p in weights)
            if l2:
                loss = loss + l2 * sum(p.square().sum() for p in weights)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        value = val(model.eval())
        if report(value, epoch):
            break
    return value


def dataset_of(definition: StudyDefinition, data_dir: Path) -> Dataset:
    return load(definition.data, data_dir=data_dir, seed=definition.seed, device="cpu", progress=print)


def _trial(definition: StudyDefinition, raw: Mapping[str, RawValue]) -> dict[str, Value]:
    return {**definition.fixed, **space.effective(definition.space, raw)}


# ---------------------------------------------------------------- usual


def usual_study(job: Job) -> None:
    """Search with Optuna's TPE and MedianPruner in as many processes as the setting leaves cores for."""
    context = multiprocessing.get_context("spawn")
    n = max(1, len(os.sched_getaffinity(0)) // job.setting.threads)
    processes = [context.Process(target=_usual_process, args=(job, seed)) for seed in range(n)]
    for process in processes:
        process.start()
    time.sleep(job.seconds)
    for process in processes:
        process.terminate()
        process.join()


def _usual_process(job: Job, seed: int) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    torch.set_num_threads(job.setting.threads)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    definition, diary = job.definition, Diary(job.folder)
    dataset = dataset_of(definition, job.data_dir)
    distributions = {name: space.distribution(parameter) for name, parameter in definition.space.items()}

    def objective(trial: optuna.Trial) -> float:
        drawn = _trial(definition, {name: _suggested(trial, name, d) for name, d in distributions.items()})
        train_loader, val_loader = _loaders(drawn, dataset, job)

        def report(value: float, epoch: int) -> bool:
            diary(value)
            trial.report(value, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
            return False

        def val(model: nn.Module) -> float:
            with torch.no_grad():
                right = sum(int((model(x).argmax(1) == y).sum()) for x, y in val_loader)
            return right / len(dataset.y_val)

        return train(
            drawn, dataset, batches=lambda: iter(train_loader), val=val, epochs=definition.epochs, fused=False,
            autocast=False, report=report,
        )  # fmt: skip

    study = optuna.create_study(
        storage=optuna.storages.JournalStorage(JournalFileBackend(str(job.folder / "optuna.journal"))),
        study_name=definition.name,
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=1000 * definition.seed + seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.optimize(objective)


def _suggested(trial: Any, name: str, distribution: Any) -> Any:
    """Optuna's public ways to ask, by the kind of distribution."""
    kind = type(distribution).__name__
    if kind == "CategoricalDistribution":
        return trial.suggest_categorical(name, distribution.choices)
    if kind == "IntDistribution":
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def _loaders(trial: Mapping[str, Value], dataset: Dataset, job: Job) -> tuple[DataLoader[Any], DataLoader[Any]]:
    from torchvision import datasets, transforms

    last = [transforms.ToTensor(), transforms.Normalize(dataset.mean.tolist(), dataset.std.tolist())]
    first = [transforms.RandomCrop(32, padding=int(number(trial, "shift")))] if trial["shift"] else []
    first += [transforms.RandomHorizontalFlip()] if trial["flip"] else []
    parts = [
        Subset(datasets.CIFAR10(job.data_dir, train=True, transform=transforms.Compose(steps)), index.tolist())
        for steps, index in (([*first, *last], dataset.train_index), (last, dataset.val_index))
    ]
    n, batch_size = job.setting.n_workers, int(number(trial, "batch_size"))
    common: dict[str, Any] = {"num_workers": n, "persistent_workers": n > 0}
    common |= {"multiprocessing_context": "fork"} if n else {}
    return (
        DataLoader(parts[0], batch_size=batch_size, shuffle=True, drop_last=True, **common),
        DataLoader(parts[1], batch_size=500, **common),
    )


# ---------------------------------------------------------------- Ray Tune


def ray_study(job: Job) -> None:
    """Search with Ray Tune's ASHA and Optuna search, one trial per core, resident data, the fused optimizer."""
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    definition = job.definition
    ray.init(num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, log_to_driver=False)
    try:
        searching = OptunaSearch(
            space={name: space.distribution(parameter) for name, parameter in definition.space.items()},
            metric="val_accuracy",
            mode="max",
            seed=definition.seed,
        )
        scheduler = ASHAScheduler(
            metric="val_accuracy", mode="max", max_t=definition.epochs, grace_period=1, reduction_factor=3
        )
        trainable = tune.with_parameters(_ray_trial, job=job, data=dataset_of(definition, job.data_dir))
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            tune_config=tune.TuneConfig(
                search_alg=searching,
                scheduler=scheduler,
                num_samples=-1,
                time_budget_s=job.seconds,
                max_concurrent_trials=len(os.sched_getaffinity(0)),
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=str(job.folder / "ray"), verbose=0),
        ).fit()
    finally:
        ray.shutdown()


def _ray_trial(config: dict[str, Any], *, job: Job, data: Dataset) -> None:
    from ray import tune

    torch.set_num_threads(1)
    diary, trial = Diary(job.folder), _trial(job.definition, config)
    x_train, x_val = (normalized(data, x, Setting()) for x in (data.x_train, data.x_val))
    batch_size = int(number(trial, "batch_size"))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(x_train))
        for index in order[: len(order) // batch_size * batch_size].view(-1, batch_size):
            yield augmented(x_train[index], trial), data.y_train[index]

    def report(value: float, epoch: int) -> bool:
        diary(value)
        tune.report({"val_accuracy": value, "training_iteration": epoch})
        return False

    train(
        trial, data, batches=batches, val=lambda model: accuracy(model, x_val, data.y_val),
        epochs=job.definition.epochs, fused=True, autocast=job.setting.autocast, report=report,
    )  # fmt: skip


def augmented(x_BCHW: Tensor, trial: Mapping[str, Value]) -> Tensor:
    """Flip and shift each image for itself, on the device."""
    n, _, height, width = x_BCHW.shape
    if trial["flip"]:
        x_BCHW = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x_BCHW.flip(3), x_BCHW)
    if shift := int(number(trial, "shift")):
        padded = functional.pad(x_BCHW, (shift,) * 4)
        row, column = (torch.randint(0, 2 * shift + 1, (n, 1)) + torch.arange(size) for size in (height, width))
        index_B = torch.arange(n).view(-1, 1, 1)
        x_BCHW = padded.permute(0, 2, 3, 1)[index_B, row.unsqueeze(2), column.unsqueeze(1)].permute(0, 3, 1, 2)
    return x_BCHW

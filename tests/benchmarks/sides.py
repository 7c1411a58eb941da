"""The two other sides: one trial at a time as PyTorch's documentation teaches it, and with its data resident.

Both are generators that train for ever; True is yielded after an epoch's validation, False after any other update.
The network is a plain torch module. Nothing here is needed but torch, torchvision and numpy.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from objectives import models
from objectives.classification import Classification
from objectives.data import Dataset, load
from objectives.hyperparameters import completed
from tests.benchmarks.workloads import Workload

LR = 1e-3
EVALUATION_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a side is run; a sweep finds its best."""

    threads: int = 1
    """Of the process; as many processes as leave one core to each thread."""
    n_workers: int = 0
    """Of each DataLoader."""
    channels_last: bool = False
    autocast: bool = False
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the data lie."""

    path: Path
    """The workload's own file (Workload.write)."""
    data_dir: Path
    """The published sets."""


Report = Callable[[float], None]
"""Is told the validation accuracy after each epoch."""
Training = Iterator[bool]


def split(workload: Workload, places: Places, device: str = "cpu") -> Dataset:
    """The training and validation parts, the same as our trainers get."""
    return load(workload.table(places.path), data_dir=places.data_dir, seed=0, device=device, progress=print)


def network(workload: Workload, dataset: Dataset) -> nn.Sequential:
    """The plain module, without dropout layers that would do nothing."""
    full = completed(workload.hyperparameters, Classification.HYPERPARAMETERS)
    net = models.architecture(full, input_shape=tuple(dataset.x_train.shape[1:]), n_outputs=len(dataset.classes))
    modules = models.single(net, dropout=workload.dropout).named_children()
    return nn.Sequential(OrderedDict((n, m) for n, m in modules if not (isinstance(m, nn.Dropout) and m.p == 0)))


# ---------------------------------------------------------------- usual


def usual(workload: Workload, setting: Setting, places: Places, report: Report, *, seed: int = 0) -> Training:
    """torchvision's data set and transforms, DataLoaders, torch.optim.Adam."""
    torch.manual_seed(seed)
    dataset = split(workload, places)
    model, device = _placed(network(workload, dataset), setting), torch.device(setting.device)
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=LR), nn.CrossEntropyLoss()
    train_part, val_part = published_parts(workload, dataset, places)
    train = _loader(train_part, setting, workload, training=True)
    val = _loader(val_part, setting, workload, training=False)

    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = x.to(device, memory_format=torch.channels_last) if setting.channels_last else x.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.autocast):
            return model(x), y.to(device)

    while True:
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            logits, targets = forward(x, y)
            criterion(logits, targets).backward()
            optimizer.step()
            yield False
        model.eval()
        n_right = torch.zeros((), dtype=torch.int64, device=device)
        with torch.no_grad():
            for x, y in val:
                logits, targets = forward(x, y)
                n_right += (logits.argmax(1) == targets).sum()
        report(n_right.item() / len(dataset.y_val))
        yield True


def published_parts(
    workload: Workload, dataset: Dataset, places: Places
) -> tuple[TorchDataset[Any], TorchDataset[Any]]:
    """The same examples as torchvision (or, for digits, a TensorDataset) gives them."""
    indices = dataset.train_index.tolist(), dataset.val_index.tolist()
    if workload.data == "digits":
        mean, std = dataset.mean, dataset.std
        parts = ((dataset.x_train, dataset.y_train), (dataset.x_val, dataset.y_val))
        train, val = (TensorDataset((x.float() / 255 - mean) / std, y) for x, y in parts)
        return train, val
    whole = _torchvision(workload.data, places.data_dir, tuple(dataset.mean.tolist()), tuple(dataset.std.tolist()))
    return Subset(whole, indices[0]), Subset(whole, indices[1])


@lru_cache(maxsize=2)
def _torchvision(data: str, data_dir: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> TorchDataset[Any]:
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    chosen = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10}[data]
    found: TorchDataset[Any] = chosen(data_dir, train=True, transform=transform)
    return found


def _loader(part: TorchDataset[Any], setting: Setting, workload: Workload, *, training: bool) -> DataLoader[Any]:
    return DataLoader(
        part,
        batch_size=workload.batch_size,
        shuffle=training,
        drop_last=training,
        num_workers=setting.n_workers,
        persistent_workers=setting.n_workers > 0,
        # a process that was itself spawned would spawn its workers: 4 s each instead of 0.05 s
        multiprocessing_context="fork" if setting.n_workers else None,
        pin_memory=setting.device != "cpu",
    )


# ---------------------------------------------------------------- resident


def resident(workload: Workload, setting: Setting, places: Places, report: Report, *, seed: int = 0) -> Training:
    """All data normalized once, on the device; an index per batch, the fused optimizer."""
    torch.manual_seed(seed)
    dataset = split(workload, places, setting.device)
    model = _placed(network(workload, dataset), setting)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    criterion = nn.CrossEntropyLoss()
    x_train, x_val = normalized(dataset, dataset.x_train, setting), normalized(dataset, dataset.x_val, setting)
    y_train, y_val = dataset.y_train, dataset.y_val
    device = x_train.device.type
    while True:
        model.train()
        order = torch.randperm(len(y_train), device=x_train.device)
        for index in order[: workload.epoch_updates * workload.batch_size].view(-1, workload.batch_size):
            with torch.autocast(device, torch.bfloat16, enabled=setting.autocast):
                loss = criterion(model(x_train[index]), y_train[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            yield False
        model.eval()
        report(accuracy(model, x_val, y_val))
        yield True


def normalized(dataset: Dataset, x: Tensor, setting: Setting) -> Tensor:
    shape = (-1, 1, 1)
    unit = (x.float() / 255 - dataset.mean.view(shape)) / dataset.std.view(shape)
    return unit.contiguous(memory_format=torch.channels_last) if setting.channels_last else unit


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """In float32, in large batches."""
    with torch.inference_mode():
        parts = zip(torch.split(x, EVALUATION_BATCH), torch.split(y, EVALUATION_BATCH), strict=True)
        return torch.stack([(model(part).argmax(1) == own).sum() for part, own in parts]).sum().item() / len(y)


def _placed(model: nn.Sequential, setting: Setting) -> nn.Sequential:
    model = model.to(setting.device)
    return model.to(memory_format=torch.channels_last) if setting.channels_last else model


SIDES: dict[str, Callable[..., Training]] = {"usual": usual, "resident": resident}

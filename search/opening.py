"""Opening a study's objective on a device, in the trainer's process: the only place that imports objectives."""

import importlib
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from search.contract import HyperparameterRule, Objective, ObjectiveFactory, Open, Opened, Precision


class CannotOpenError(Exception):
    """The study asks for an objective or a device that is not there."""

    user_message = True


def warm_up() -> None:
    """Import what takes longest, while the order to open an objective is still to come."""
    import torch  # noqa: F401


def opened_objective(order: Open, progress: Callable[[str], None]) -> tuple[Opened, Objective]:
    """Settle on the cores, choose device and precision, import the objective and let it load its data.

    Raises:
        Exception: whatever the objective raises; with `user_message` where the message alone is for the user.
    """
    import torch

    from objectives.probe import choose_precision

    factory = _factory(order.objective)
    cuda = torch.cuda.is_available()
    device = ("cuda" if cuda else "cpu") if order.device == "auto" else order.device
    _check_device(device, torch.cuda.device_count() if cuda else 0)
    if device == "cpu":
        torch.set_num_threads(1)
        if order.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, order.cores)
    chosen, probe = order.precision, f"{order.precision}, as the study has it"
    if order.precision == "auto":
        chosen, probe = choose_precision(device)
    precision = cast("Precision", chosen)
    objective = factory(
        data=order.data,
        data_dir=Path(order.data_dir),
        seed=order.seed,
        device=device,
        precision=precision,
        progress=progress,
    )
    opened = Opened(
        hyperparameters=_rules(factory),
        metrics=dict(factory.METRICS),
        facts=dict(objective.facts),
        device=device,
        device_name=torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        n_devices=torch.cuda.device_count() if cuda else 0,
        precision=precision,
        probe=probe,
        # as plain text: reading torch's own class of text imports torch
        versions={"python": platform.python_version(), "torch": str(torch.__version__)},
    )
    return opened, objective


def _check_device(device: str, n_gpus: int) -> None:
    _, _, index = device.partition(":")
    if device != "cpu" and int(index or 0) >= n_gpus:
        found = f"PyTorch finds {n_gpus} GPU(s) here" if n_gpus else "PyTorch finds no GPU here"
        raise CannotOpenError(f"device: {found}, got {device}. Use --device auto, or cpu.")


def _factory(name: str) -> ObjectiveFactory:
    if ":" not in name:
        from objectives import OBJECTIVES

        if name not in OBJECTIVES:
            known = ", ".join(sorted(OBJECTIVES))
            raise CannotOpenError(f'objective: must be one of {known}, or "package.module:Name", got {name!r}.')
        name = OBJECTIVES[name]
    module, _, attribute = name.partition(":")
    try:
        return cast("ObjectiveFactory", getattr(importlib.import_module(module), attribute))
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise CannotOpenError(
            f"objective: there is no module {error.name!r}, got {name!r}. Run from its folder, or install it."
        ) from error
    except AttributeError as error:
        raise CannotOpenError(f"objective: {module} has no {attribute!r}, got {name!r}. Rename it.") from error


def _rules(factory: ObjectiveFactory) -> Mapping[str, HyperparameterRule]:
    return {
        name: HyperparameterRule(
            kind=h.kind,
            default=h.default,
            structural=h.structural,
            low=h.low,
            high=h.high,
            low_open=h.low_open,
            high_open=h.high_open,
            choices=tuple(h.choices),
        )
        for name, h in factory.HYPERPARAMETERS.items()
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        stripped = {key.strip(): value.strip() for key, value in fields.items()}
        return f"{stripped['model name']} (family {stripped['cpu family']}, model {stripped['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()

"""Learning rates over a trial's updates, as a pure function."""

import math
from collections.abc import Mapping

from objectives.hyperparameters import Value, number


def lr(hyperparameters: Mapping[str, Value], *, update: int, n_updates: int, updates_per_epoch: int) -> float:
    """Return the learning rate of the given update (from 0) of a trial of `n_updates`.

    Warm-up rises linearly over its part of all updates; the schedule then runs over the rest, reaching its end there.
    Source: Loshchilov and Hutter (2017) for cosine; Smith and Topin (2018) for one_cycle with the constants of
    torch.optim.lr_scheduler.OneCycleLR (from lr / 25 to lr to lr / 250,000, cosine both ways), momentum constant.
    """
    peak_lr = number(hyperparameters, "lr")
    n_warmup = math.ceil(number(hyperparameters, "warmup") * n_updates)
    if update < n_warmup:
        return peak_lr * (update + 1) / (n_warmup + 1)
    update, n_updates = update - n_warmup, n_updates - n_warmup
    match hyperparameters["schedule"]:
        case "cosine":
            return _between(peak_lr, 0.0, update / n_updates)
        case "one_cycle":
            last, top = n_updates - 1, number(hyperparameters, "peak") * n_updates - 1
            if update < top:
                return _between(peak_lr / 25, peak_lr, update / top)
            return _between(peak_lr, peak_lr / 25e4, (update - top) / (last - top))
        case "step":
            n_steps = update // int(updates_per_epoch * number(hyperparameters, "step_size"))
            return peak_lr * float(number(hyperparameters, "gamma") ** n_steps)
        case _:
            return peak_lr


def _between(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2

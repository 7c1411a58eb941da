"""What a trainer's population takes at its peak, against what it must take."""

import gc
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from objectives import models
from objectives.classification import Classification
from objectives.hyperparameters import completed
from objectives.supervised import SupervisedObjective
from tests.benchmarks.engine import filled, objective
from tests.benchmarks.sides import EVALUATION_BATCH, Places, split
from tests.benchmarks.workloads import Workload

MB = 2**20
N_UPDATES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    slots: int
    peak_mb: float
    must_mb: float

    @property
    def ratio(self) -> float:
        return self.peak_mb / self.must_mb


def used(workload: Workload, places: Places, slots: int, precision: str) -> Used:
    """Train, evaluate and keep a population; must be called in a process in which nothing else was trained.

    The data, the interpreter and torch's kernels are there before: they do not count.
    """
    found = objective(workload, places, precision=precision)
    tiny = replace(workload, hyperparameters={**workload.hyperparameters, "hidden": (2,)})
    _trained(found, tiny, 1)
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: man 5 proc
    _trained(found, workload, slots)
    must = must_bytes(workload, places, slots, precision=precision)
    return Used(slots=slots, peak_mb=(_status("VmHWM") - before) / MB, must_mb=must / MB)


def must_bytes(workload: Workload, places: Places, slots: int, *, precision: str) -> float:
    """Parameters, gradients, two moments, the best epoch's weights, bfloat16 copies, activations.

    Of a hidden layer backward needs its output (after the activation), with BatchNorm also what goes in there, with
    dropout the masked output and a byte for each element of the mask, with pooling a quarter. Two layers' gradients
    are alive at a time. Evaluation may go slot by slot, in large batches.
    """
    dataset = split(workload, places)
    full = completed(workload.hyperparameters, Classification.HYPERPARAMETERS)
    net = models.architecture(full, input_shape=tuple(dataset.x_train.shape[1:]), n_outputs=len(dataset.classes))
    cnn = net.model == "cnn"
    units = [n * (math.prod(net.sizes[i]) if cnn else 1) for i, n in enumerate(net.hidden)]
    copies = 1 + (net.norm != "none") + 1.25 * (workload.dropout > 0) + 0.25 * cnn
    n_inputs = math.prod(net.input_shape)
    training = workload.batch_size * (n_inputs + copies * sum(units) + 2 * max(units)) * 4 * slots
    evaluation = EVALUATION_BATCH * (n_inputs + 2 * max(units)) * 4
    weights = 4 + 4 + 8 + 4 + (2 if precision == "bfloat16" else 0)
    return slots * models.n_parameters(net) * weights + max(training, evaluation)


def _trained(found: SupervisedObjective, workload: Workload, slots: int) -> None:
    population = filled(found, workload, slots)
    for _ in range(2):
        for _ in range(N_UPDATES):
            population.update()
        population.evaluate()
        for slot in range(slots):
            population.keep(slot)


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024

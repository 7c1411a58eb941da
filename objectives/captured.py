"""Rows that stay where they are, updated by operations that are always the same: what a GPU replays as a CUDA graph.

A slot's row is refilled in place by the next slot; a row that nobody has holds zeros and an lr of 0, and is computed
like all others. Whatever an update needs lies on the device: at the start of each of its epochs a slot's order of the
examples and its learning rates are written there, without waiting. P rows, n parameters a row, U updates an epoch,
B examples.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from objectives import one_pass, optimizers, regularizers
from objectives.flat import Layout, Tensors
from objectives.numbers import Draws, Numbers, write
from objectives.optimizers import StackedStep
from objectives.rows import Plan
from objectives.streams import key
from objectives.task import Slot, Task

Operations = Callable[[], None]
CHANGED = ("parameters", "gradients", "moment 0", "moment 1")
WARM_UPS = 3
"""Runs before a capture, on a stream beside: libraries set themselves up. Source: as of CudaGraph."""


class Captured:
    """Satisfies objectives.rows.Rows."""

    def __init__(
        self,
        task: Task,
        plan: Plan,
        *,
        layout: Layout,
        buffer_layout: Layout,
        dtype: torch.dtype,
        room: int = 0,
        capture: Callable[[Operations], Operations] | None = None,
        kernel: Any = None,
    ) -> None:
        """Make `room` rows, all empty; for slots that find none more are made, and the update is captured anew.

        Args:
            capture: returns what runs the same operations again; by default a CUDA graph, on the CPU they themselves.
            kernel: of one_pass.py; by default compiled where it can be used, else operations are stacked.
        """
        self._task, self._plan, self._layout, self._buffer_layout = task, plan, layout, buffer_layout
        self._capture = capture
        one_pass_fits = task.device.type == "cuda" and dtype == torch.float32 and plan.optimizer != "sgd"
        self._kernel = one_pass.compiled(task.device) if kernel is None and one_pass_fits else kernel
        rows: Callable[..., Tensor] = partial(torch.zeros, device=task.device)
        n_moments, length = optimizers.n_moments(plan.optimizer), plan.n_updates * min(plan.batch_size, plan.n_train)
        self._static = {
            **{name: rows(room, layout.n, dtype=dtype) for name in CHANGED[: 2 + n_moments]},
            "buffers": rows(room, buffer_layout.n, dtype=dtype),
            "orders": rows(room, length, dtype=torch.int64),
            "lrs": rows(room, plan.n_updates, dtype=torch.float64),
            "whole": rows(room, dtype=torch.float64),  # 1 where biases and norms are not exempt
            "roots": rows(room, dtype=torch.int64),
            "counts": rows(room, dtype=torch.int64),
        }
        """What an update reads and writes, a row a slot; none is moved but where room is made."""
        self._places: list[Slot | None] = [None] * room
        self._arrived: dict[int, tuple[Tensor, Tensor]] = {}
        """Initial parameters and buffers, by row, of those who wait for their row to be written."""
        self._lay_out()

    @property
    def slots(self) -> Sequence[Slot]:
        return [slot for slot in self._places if slot]

    @property
    def parameters(self) -> Tensor:
        self._settle()
        return self._static["parameters"]

    @property
    def buffers(self) -> Tensor:
        self._settle()
        return self._static["buffers"]

    def row(self, slot: Slot) -> int:
        return self._places.index(slot)

    # ------------------------------------------------------------ coming and going

    def place(self, slot: Slot, parameters: Tensors, buffers: Tensors) -> None:
        if None not in self._places:
            self._places.append(None)
        row = self._places.index(None)
        self._places[row] = slot
        self._arrived[row] = self._layout.row(parameters), self._buffer_layout.row(buffers)

    def vacate(self, slot: Slot) -> None:
        self._settle()
        row = self.row(slot)
        self._places[row] = None
        self._clear(row)

    def _settle(self) -> None:
        """Write those who came to their rows: room for all who came together is made at once."""
        if len(self._places) > len(self._static["counts"]):
            self._make_room()
        while self._arrived:
            row, (parameters, buffers) = self._arrived.popitem()
            slot, static = self._places[row], self._static
            assert slot
            self._clear(row)
            self._numbers.put(row, slot.numbers)
            write(parameters, into=static["parameters"][row])
            write(buffers, into=static["buffers"][row])
            static["roots"][row].fill_(key(slot.seed, "draws"))
            static["whole"][row].fill_(slot.hyperparameters["exempt"] == "none")

    def _clear(self, row: int) -> None:
        """A row of zeros stays finite, whatever became of the slot that had it."""
        for rows in self._static.values():
            rows[row].zero_()
        self._numbers.put(row, None)

    def _make_room(self) -> None:
        self._graphs.clear()
        for name, rows in list(self._static.items()):  # one after the other: two copies of all would not fit
            self._static[name] = torch.cat([rows, rows.new_zeros(len(self._places) - len(rows), *rows.shape[1:])])
        self._lay_out()

    def _lay_out(self) -> None:
        static = self._static
        self._stacks = self._layout.views(static["parameters"]), self._layout.views(static["gradients"])
        self._buffer_stacks = self._buffer_layout.views(static["buffers"])
        given = [slot.numbers if slot else None for slot in self._places]
        names, switches = self._plan.names, self._plan.switches
        self._numbers = Numbers(given, names, device=self._task.device, switches=switches, stays=True)
        self._graphs: dict[frozenset[str], Operations] = {}
        self._captured = self._capture or _capturing(self._task.device)

    # ------------------------------------------------------------ training

    def update(self) -> None:
        self._settle()
        slots = [(row, slot) for row, slot in enumerate(self._places) if slot]
        for row, slot in slots:
            if slot.n_updates % self._plan.n_updates == 0:
                self._begin_epoch(row, slot)
        if (in_use := self._numbers.in_use) not in self._graphs:
            self._graphs[in_use] = self._captured(self._operations)
        self._graphs[in_use]()
        for _, slot in slots:
            slot.n_updates += 1

    def _begin_epoch(self, row: int, slot: Slot) -> None:
        order, orders = self._plan.order(slot, device=self._task.device), self._static["orders"]
        orders[row] = order[: orders.shape[1]]
        write(torch.tensor(self._plan.lrs(slot), dtype=torch.float64), into=self._static["lrs"][row])

    def _operations(self) -> None:
        """One update of all rows: operations on the device alone, the same ones as long as `in_use` is the same."""
        static, numbers, (parameters, gradients) = self._static, self._numbers, self._stacks
        counts = static["counts"]
        at = counts.remainder(self._plan.n_updates)
        drawn = Draws(numbers=numbers, roots=static["roots"], counts=counts)
        self._task.gradients(parameters, self._buffer_stacks, self._batches(at), drawn, into=gradients)
        counts.add_(1)
        step = StackedStep(
            lrs=static["lrs"].gather(1, at.unsqueeze(1)).squeeze(1),
            momenta=numbers["momentum"],
            weight_decays=numbers["weight_decay"] if numbers.used("weight_decay") else None,
            whole=static["whole"],
            counts=counts,
        )
        self._step(step)

    def _step(self, step: StackedStep) -> None:
        """Add the penalties' gradients, clip, and change parameters and moments."""
        numbers, n_weights = self._numbers, self._layout.n_penalized
        p, g, *moments = (self._static[name] for name in self._static if name in CHANGED)
        clips = numbers.used("clip_norm")
        # the norm that is clipped has the penalties in it
        if (clips or not self._kernel) and (numbers.used("l1") or numbers.used("l2")):
            regularizers.add_gradients_stacked(p, g, numbers, whole_P=step.whole, n_weights=n_weights)
        if clips:
            optimizers.clip(g, numbers["clip_norm"])
        if self._kernel:
            found = one_pass.coefficients(step, numbers, penalties=not clips)
            one_pass.update(self._kernel, [p, g, *moments], found, n_weights=n_weights)
        else:
            kind, nesterov = self._plan.optimizer, self._plan.nesterov
            optimizers.update_stacked(kind, p, g, moments, step, n_weights=n_weights, nesterov=nesterov)

    def _batches(self, at: Tensor) -> Tensor:
        """Each row's next examples (P, B)."""
        n_rows, n_updates = len(at), self._plan.n_updates
        orders = self._static["orders"].view(n_rows, n_updates, -1)
        return orders.gather(1, at.view(-1, 1, 1).expand(n_rows, 1, orders.shape[2])).squeeze(1)


# ---------------------------------------------------------------- graphs


def _capturing(device: torch.device) -> Callable[[Operations], Operations]:
    if device.type != "cuda":
        return lambda operations: operations
    return partial(CudaGraph, device=device, pool=torch.cuda.graph_pool_handle())


class CudaGraph:
    """Operations that run as they are WARM_UPS times, are then captured, and from then on replayed: one run a call.

    They read and write tensors that stay where they are; what they allocate lies in the pool. Several graphs can share
    one, as none needs what another left there. Source: "CUDA Graphs" in PyTorch's notes on CUDA semantics.
    """

    def __init__(self, operations: Operations, *, device: torch.device, pool: Any) -> None:
        self._operations, self._device, self._pool = operations, device, pool
        self._n_warm_ups, self._beside = 0, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        if self._graph is None and self._n_warm_ups < WARM_UPS:
            self._n_warm_ups += 1
            with torch.cuda.device(self._device):
                self._run_beside()
            return
        if self._graph is None:
            with torch.cuda.device(self._device):
                self._graph = self._captured()
        self._graph.replay()

    def _run_beside(self) -> None:
        here = torch.cuda.current_stream()
        self._beside.wait_stream(here)
        with torch.cuda.stream(self._beside):
            self._operations()
        here.wait_stream(self._beside)

    def _captured(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # other threads may use their own devices meanwhile
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            self._operations()
        return graph

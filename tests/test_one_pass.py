"""The kernel for CUDA against stacked operations: as C++ where there is no GPU."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives import one_pass, optimizers, regularizers
from objectives.captured import Captured
from objectives.classification import Classification, CrossEntropy
from objectives.folds import Folds
from objectives.hyperparameters import Value
from objectives.numbers import Numbers
from objectives.optimizers import StackedStep
from objectives.population import Population
from objectives.rows import MakeRows
from objectives.supervised import SupervisedTask
from tests import toy

HOST = """
#include <cmath>
#define __global__
struct Index { int x, y; };
static Index blockIdx, blockDim, threadIdx, gridDim;
%s
extern "C" void launch(int blocks, int rows, int threads,
                       float* p, float* g, float* m, float* v, float* c, int n, int w) {
    gridDim = {blocks, rows}; blockDim = {threads, 1};
    for (int y = 0; y < rows; y++) for (int x = 0; x < blocks; x++) for (int t = 0; t < threads; t++) {
        blockIdx = {x, y}; threadIdx = {t, 0};
        adam(p, g, m, v, c, n, w);
    }
}
"""
N, N_WEIGHTS = 700, 650


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """The kernel's source as C++, called as the kernel is."""
    if not shutil.which("g++"):
        pytest.skip("no g++ here")
    source = tmp_path_factory.mktemp("kernel") / "adam.cpp"
    source.write_text(HOST % one_pass.SOURCE)
    library = source.with_suffix(".so")
    subprocess.run(["g++", "-O1", "-shared", "-fPIC", source, "-o", library], check=True)
    launch = ctypes.CDLL(str(library)).launch

    def kernel(*, grid: Sequence[int], block: Sequence[int], args: Sequence[Any]) -> None:
        places = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_int(a) for a in args]
        launch(grid[0], grid[1], block[0], *places)

    return kernel


def compare(kernel: Callable[..., None], device: torch.device, *, penalties: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    slots = [
        toy.full({"momentum": 0.3 * row, "weight_decay": 0.1 * row, "l1": 0.01 * row, "l2": 0.1 * (2 - row)})
        | {"exempt": "none" if row == 2 else "biases_and_norms"}
        for row in range(3)
    ]
    numbers = Numbers(slots, ["momentum", "weight_decay", "l1", "l2"], device=device)
    whole = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64, device=device)
    start = torch.randn(3, N, generator=draw)
    both = [[start.to(device, copy=True), *(torch.zeros(3, N, device=device) for _ in range(3))] for _ in (0, 1)]
    both[0] = [rows.double() for rows in both[0]]
    for count in range(1, 20):
        gradients = torch.randn(3, N, generator=draw)
        for rows in both:
            rows[1].copy_(gradients)
        step = StackedStep(
            lrs=torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64, device=device),
            momenta=numbers["momentum"],
            weight_decays=numbers["weight_decay"],
            whole=whole,
            counts=torch.tensor([0, 5, 9], device=device) + count,
        )
        p, g, *moments = both[0]
        if penalties:
            regularizers.add_gradients_stacked(p, g, numbers, whole_P=whole, n_weights=N_WEIGHTS)
        optimizers.update_stacked("adamw", p, g, moments, step, n_weights=N_WEIGHTS, nesterov=False)
        found = one_pass.coefficients(step, numbers, penalties=penalties)
        one_pass.update(kernel, both[1], found, n_weights=N_WEIGHTS)
    assert torch.allclose(both[0][0], both[1][0].double(), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(both[1][0], start.to(device), atol=0.01)


@pytest.mark.parametrize("penalties", [False, True])
def test_one_pass_equals_stacked_operations(on_host: Callable[..., None], *, penalties: bool) -> None:
    compare(on_host, torch.device("cpu"), penalties=penalties)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5])
def test_population_is_trained_the_same_in_one_pass(on_host: Callable[..., None], clip_norm: float) -> None:
    own: dict[str, Value] = {"l1": 1e-3, "l2": 1e-2, "weight_decay": 0.1, "clip_norm": clip_norm, "optimizer": "adamw"}
    trained = []
    for kernel in (None, on_host):
        task = SupervisedTask(Folds(toy.dataset(), seed=0), toy.full(own), loss=CrossEntropy(), precision="float32")
        rows: MakeRows = partial(Captured, kernel=kernel)
        trained.append(Population(task, toy.full(own), declared=Classification.HYPERPARAMETERS, epochs=1, rows=rows))
        toy.admit(trained[-1], 0, own, seed=0)
        toy.admit(trained[-1], 1, own | {"l1": 0.0, "exempt": "none", "lr": 0.002}, seed=1)
        toy.train(trained[-1], epochs=1)
    for slot in (0, 1):
        assert toy.difference(trained[1].weights(slot), trained[0].weights(slot)) < 1e-3


def test_kernel_compiles_for_a_gpu() -> None:
    from torch.cuda import _utils

    if torch.version.cuda is None:
        pytest.skip("torch without CUDA")
    binary, _ = _utils._nvrtc_compile(one_pass.SOURCE, "adam", compute_capability="90")
    assert len(binary) > 1000


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("penalties", [False, True])
def test_one_pass_on_a_gpu_equals_stacked_operations(*, penalties: bool) -> None:
    device = torch.device("cuda")
    compare(one_pass.compiled(device), device, penalties=penalties)

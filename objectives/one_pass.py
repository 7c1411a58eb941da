"""Adam and AdamW of all rows in one pass over parameters, gradients and moments, penalties included: a kernel for CUDA.

Stacked operations (optimizers.py) pass over memory some 18 times, this one 7: it reads four numbers for each
parameter and writes three. P rows, n parameters a row, of which the first n_weights belong to weights.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from objectives.numbers import Numbers
from objectives.optimizers import BETA2, EPS, StackedStep, corrections

THREADS, MOST_BLOCKS = 256, 1024
"""Of a block; blocks a row: a block takes several pieces of a long row."""
SOURCE = """
extern "C" __global__ void adam(
    float* p, const float* g, float* m, float* v, const float* coefficients, int n, int n_weights
) {
    const float* c = coefficients + (long long)blockIdx.y * 9;
    const long long start = (long long)blockIdx.y * n;
    const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (long long i = first; i < n; i += (long long)gridDim.x * blockDim.x) {
        const int rest = i >= n_weights;
        const long long k = start + i;
        const float w = p[k];
        const float d = g[k] + c[1 + rest] * ((w > 0.0f) - (w < 0.0f)) + c[3 + rest] * w;
        const float mean = m[k] + (d - m[k]) * c[0];
        const float square = (float)BETA2 * v[k] + (float)(1.0 - BETA2) * d * d;
        m[k] = mean;
        v[k] = square;
        p[k] = w * c[5 + rest] - c[7] * mean / (sqrtf(square) + c[8]);
    }
}
""".replace("BETA2", repr(BETA2))


def compiled(device: torch.device) -> Any:
    """Return the kernel for this GPU, or None, with a warning, where this torch cannot compile it."""
    try:
        with torch.cuda.device(device):
            return torch.cuda._compile_kernel(SOURCE, "adam")
    except (AttributeError, OSError, RuntimeError) as error:
        warnings.warn(
            f"{device}: Adam must be compiled to pass over memory once, got {type(error).__name__}: {error}. "
            "Training goes on with stacked operations; install torch with its NVRTC library.",
            stacklevel=2,
        )
        return None


def coefficients(step: StackedStep, numbers: Numbers, *, penalties: bool) -> Tensor:
    """Return what the kernel reads of each row, float32 (P, 9).

    1 - beta1; factors of sign(w) and w in the gradient and of w in the parameter, each for weights and for the rest;
    the step's factor; what is added to its divisor.

    Args:
        penalties: whether L1 and L2 are to enter the gradient here.
    """
    zeros, ones = torch.zeros_like(step.lrs), torch.ones_like(step.lrs)
    l1 = numbers["l1"] if penalties else zeros
    l2 = 2 * numbers["l2"] if penalties else zeros
    decay = zeros if step.weight_decays is None else step.lrs * step.weight_decays
    root, rate = corrections(step)
    columns = [1 - step.momenta, l1, l1 * step.whole, l2, l2 * step.whole]
    columns += [ones - decay, ones - decay * step.whole, rate * root, EPS * root]
    return torch.stack(columns, dim=1).to(torch.float32)


def update(kernel: Any, rows: Sequence[Tensor], coefficients_P9: Tensor, *, n_weights: int) -> None:
    """Change parameters and moments in place, on the current stream.

    Args:
        rows: parameters, gradients and both moments, each float32 (P, n), contiguous.
    """
    n_rows, n = rows[0].shape
    n_blocks = min(-(-n // THREADS), MOST_BLOCKS)
    kernel(grid=(n_blocks, n_rows, 1), block=(THREADS, 1, 1), args=[*rows, coefficients_P9, n, n_weights])

"""What a module of the user's own needs and cannot do, found by running it on random inputs before anything is trained.

P slots, B examples, K outputs.
"""

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from objectives import streams
from objectives.flat import Tensors
from objectives.network import NetworkError
from objectives.slotwise import STAND_IN, Slotwise, alone, together

OTHER_RATE = 0.15915494309189535
"""A second rate to build the module with: whatever changes from STAND_IN to this one is the slot's own."""

TORCH_RAISES = (RuntimeError, ValueError, TypeError, IndexError)
"""Where tensors do not fit, and where torch.func does not know how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a module is to be run."""

    draws: bool
    """It draws random numbers that are not dropout's."""
    why_alone: str
    """Why its slots run one after another; empty where together."""


def dry_run(path: str, module: nn.Module, other: nn.Module, x: Tensor, n_outputs: int) -> Found:
    """Run a module as networks are trained and measured.

    Args:
        path: of what built it, for messages.
        module: built with dropout = STAND_IN; `other`, the same with OTHER_RATE.
        x: a few inputs (B, ...).

    Raises:
        NetworkError: it cannot be trained, or not as the only network that it is.
    """
    _check_layers(path, module)
    functions, draws = _trained_alone(path, module, x, n_outputs)
    _check_rates(path, functions.rates, _trained_alone(path, other, x, n_outputs)[0].rates)
    if draws and x.device.type != "cpu":
        raise NetworkError(
            f"{path}: only dropout may draw random numbers on {x.device.type}, but the module draws others. "
            "Use dropout, or --device cpu."
        )
    if functions.convolves and x.device.type == "cpu":
        return Found(draws=draws, why_alone=f"{path}: on a CPU convolutions gain nothing from company")
    return Found(draws=draws, why_alone=_obstacle(path, module, x))


def split(module: nn.Module) -> tuple[Tensors, Tensors]:
    """Return what is trained, and what else is a slot's own: buffers, and parameters that stay as they are.

    Buffers of integers belong to the module's code; check_alike sees to it that all slots have the same.
    """
    parameters = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    others = itertools.chain(module.named_parameters(), module.named_buffers())
    return parameters, {n: t.detach() for n, t in others if t.is_floating_point() and n not in parameters}


def check_alike(path: str, module: nn.Module, like: nn.Module) -> None:
    """Refuse a module that differs from another of its structure in more than numbers that training may change.

    Raises:
        NetworkError: see above.
    """
    shapes = [{n: t.shape for named in split(each) for n, t in named.items()} for each in (module, like)]
    fixed = [_integers(each) for each in (module, like)]
    differing = {n for n in shapes[0].keys() | shapes[1].keys() if shapes[0].get(n) != shapes[1].get(n)}
    differing |= {n for n in fixed[0].keys() & fixed[1].keys() if not fixed[0][n].equal(fixed[1][n].cpu())}
    if differing:
        raise NetworkError(
            f"{path}: all trials of one structure must have the same tensors, but {', '.join(sorted(differing))} "
            "differs between two. Let it depend on structural hyperparameters alone: build a dropout at rate 0, too."
        )


def _integers(module: nn.Module) -> Tensors:
    named = module.named_buffers()
    return {n: t for n, t in named if not t.is_floating_point() and not n.endswith("num_batches_tracked")}


def _check_layers(path: str, module: nn.Module) -> None:
    if not any(p.requires_grad for p in module.parameters()):
        raise NetworkError(f"{path}: a network must have parameters to train, but this one has none.")
    if lazy := [name for name, p in module.named_parameters() if is_lazy(p)]:
        raise NetworkError(f"{path}: {lazy[0]} has no shape yet. Give its layer the number of its inputs.")
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and layer.momentum is None and layer.track_running_stats:
            raise NetworkError(
                f'{path}: layer "{name}" ({type(layer).__name__}) must have a momentum to be measured with moving '
                "statistics, got momentum = None. Use momentum = 0.1."
            )


def _check_rates(path: str, rates: list[float], others: list[float]) -> None:
    for i, (rate, other) in enumerate(itertools.zip_longest(rates, others), start=1):
        if rate != other and (rate, other) != (STAND_IN, OTHER_RATE):
            raise NetworkError(
                f"{path}: the rate of dropout {i} must be the hyperparameter dropout itself or a constant, but is "
                f"{other} where dropout = {OTHER_RATE}. Pass it on as it is, or give the hyperparameter another name."
            )


def _trained_alone(path: str, module: nn.Module, x: Tensor, n_outputs: int) -> tuple[Slotwise, bool]:
    """Run it as one slot's network; return what was called, and whether other random numbers were drawn."""
    functions, fixed = _functions(x), {n: t.clone() for n, t in _integers(module).items()}
    with _inside(module) as layers, streams.seeded(0, "dry run"):
        before = torch.get_rng_state()
        try:
            outputs, _ = alone(module.train(), *split(module), x, functions)
        except TORCH_RAISES as error:
            raise NetworkError(
                f"{path}: {layers[-1]} cannot be trained on inputs of shape {tuple(x.shape)}: {_brief(error)}."
            ) from error
        draws = not before.equal(torch.get_rng_state())
    if not isinstance(outputs, Tensor) or outputs.shape != (len(x), n_outputs):
        got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise NetworkError(f"{path}: outputs must be a tensor of shape ({len(x)}, {n_outputs}), got {got}.")
    if moved := [n for n, t in _integers(module).items() if not t.equal(fixed[n])]:
        raise NetworkError(f"{path}: {moved[0]} changes in training, but only buffers of floating point may.")
    return functions, draws


def _obstacle(path: str, module: nn.Module, x: Tensor) -> str:
    """Run it as two slots' networks, trained and measured; return why that is impossible, or nothing."""
    parameters, buffers = ({n: torch.stack([t, t]) for n, t in named.items()} for named in split(module))
    keys, rates = x.new_zeros(2, dtype=torch.int64), x.new_zeros(2, dtype=torch.float64)
    for training in (True, False):
        with _inside(module.train(training)) as layers:
            try:
                together(
                    module,
                    parameters,
                    buffers,
                    torch.stack([x, x]),
                    keys=keys if training else None,
                    rates=rates if training else None,
                    product=x.dtype,
                )
            except TORCH_RAISES as error:
                return f"{path}: {layers[-1]} has no form for several slots: {_brief(error)}"
    return ""


def _functions(x: Tensor) -> Slotwise:
    key, rate = x.new_zeros((), dtype=torch.int64), x.new_zeros((), dtype=torch.float64)
    return Slotwise(key=key, rate=rate, product=x.dtype)


@contextlib.contextmanager
def _inside(module: nn.Module) -> Iterator[list[str]]:
    """Keep the layers that are being run, the innermost last: where an error leaves them, they stay."""
    layers: list[str] = []
    with contextlib.ExitStack() as hooks:
        for name, layer in module.named_modules():
            text = f'layer "{name}" ({type(layer).__name__})' if name else f"the module ({type(layer).__name__})"
            before = layer.register_forward_pre_hook(lambda *_, text=text: layers.append(text))
            after = layer.register_forward_hook(lambda *_: layers.pop() and None)
            for hook in (before, after):
                hooks.callback(hook.remove)
        yield layers


def _brief(error: Exception) -> str:
    """The first sentence of an error."""
    return str(error).partition("\n")[0].partition(". ")[0].rstrip(".") or type(error).__name__

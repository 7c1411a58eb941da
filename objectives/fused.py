"""A user's own modules, unchanged, as one stack: each of their layers runs once for all slots, by torch.func.vmap.

Where a module does not allow that, or it does not pay, its slots run one after another, to the same numbers.

P slots, B examples, K outputs.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from objectives import streams
from objectives.dry_run import OTHER_RATE, check_alike, dry_run, split
from objectives.flat import Tensors
from objectives.hyperparameters import Hyperparameter, Value
from objectives.network import Arithmetic, Build, Network, NetworkError, path_of
from objectives.numbers import Draws
from objectives.slotwise import STAND_IN, Slotwise, alone, together
from objectives.task import Slot


@dataclass(frozen=True, slots=True)
class Fused:
    """Satisfies objectives.network.Networks with the modules that a function of the user's builds."""

    build: Build
    HYPERPARAMETERS: Mapping[str, Hyperparameter]
    """What `build` reads; of these only `dropout` may differ within a stack."""
    _made: "dict[str, FusedNetwork]" = field(default_factory=dict, repr=False)

    def stacked(
        self,
        hyperparameters: Mapping[str, Value],
        *,
        input_shape: tuple[int, ...],
        n_outputs: int,
        arithmetic: Arithmetic,
        device: torch.device,
    ) -> Network:
        structure = {name: hyperparameters[name] for name, rule in self.HYPERPARAMETERS.items() if rule.structural}
        key = repr((structure, input_shape, n_outputs, arithmetic, device))
        if key not in self._made:
            built = Built(build=self.build, rules=self.HYPERPARAMETERS, input_shape=input_shape, n_outputs=n_outputs)
            self._made[key] = FusedNetwork(built, hyperparameters, arithmetic=arithmetic, device=device)
        return self._made[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """Makes modules for one form of data."""

    build: Build
    rules: Mapping[str, Hyperparameter]
    input_shape: tuple[int, ...]
    n_outputs: int

    def __call__(self, hyperparameters: Mapping[str, Value], *, seed: int) -> nn.Module:
        """Return a module with the initial weights of a seed.

        Raises:
            NetworkError: it is no module.
        """
        with streams.seeded(seed, "initial weights"):
            module = self.build(dict(hyperparameters), input_shape=self.input_shape, n_outputs=self.n_outputs)
        if not isinstance(module, nn.Module):
            raise NetworkError(f"{path_of(self.build)}: must return an nn.Module, got {type(module).__name__}.")
        return module


class FusedNetwork:
    """Satisfies objectives.network.Network."""

    def __init__(
        self, built: Built, hyperparameters: Mapping[str, Value], *, arithmetic: Arithmetic, device: torch.device
    ) -> None:
        """Build a module that is used for its code alone, and try it.

        Raises:
            NetworkError: it cannot be trained.
        """
        self._built, self._arithmetic = built, arithmetic

        def module(rate: float) -> nn.Module:
            own = {"dropout": rate} if "dropout" in built.rules else {}
            return built({**hyperparameters, **own}, seed=0).to(device=device, dtype=arithmetic.dtype)

        self._module = module(STAND_IN)
        x = torch.randn(4, *built.input_shape, generator=streams.generator(0, "dry run"), dtype=arithmetic.dtype)
        self._found = dry_run(path_of(built.build), self._module, module(OTHER_RATE), x.to(device), built.n_outputs)
        self._moving = split(self._module)[1].keys() - dict(self._module.named_parameters()).keys()
        """Names of the buffers that training may change."""
        self._tape: list[tuple[slice, Tensor, Tensors]] = []
        """Of the last forward in training: slots, their outputs, and the parameters that these came from."""

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self._module.parameters() if p.requires_grad)

    @property
    def product(self) -> torch.dtype:
        return self._arithmetic.dtype  # what the module multiplies is cast where it does so

    @property
    def why_alone(self) -> str:
        return self._found.why_alone

    def initial(self, slot: Slot) -> tuple[Tensors, Tensors]:
        module = self._built(slot.hyperparameters, seed=slot.seed)
        check_alike(path_of(self._built.build), module, self._module)
        return split(module)

    def plain(self, weights: Mapping[str, Tensor], hyperparameters: Mapping[str, Value]) -> Tensors:
        return {name: tensor.contiguous() for name, tensor in weights.items()}

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, *, draws: Draws) -> Tensor:
        training, n = draws.training, len(x)
        if self._module.training != training:
            self._module.train(training)
        self._tape.clear()
        keys = draws.keys("module") if training else None
        rates = draws.numbers["dropout"] if training and draws.numbers.used("dropout") else None
        size, outputs = 1 if self.why_alone else n, []
        for rows in (slice(i, i + size) for i in range(0, n, size)):
            leaves = {name: stack[rows].detach().requires_grad_(training) for name, stack in parameters.items()}
            # copies: of slots that lie apart torch would move one of its own, and autograd takes rows for one tensor
            own = {name: stack[rows].clone() if training else stack[rows] for name, stack in buffers.items()}
            drawn = [None if of_all is None else of_all[rows] for of_all in (keys, rates)]
            with torch.set_grad_enabled(training):
                outputs_pBK, moved = self._run(leaves, own, x[rows], *drawn)
            if training:
                self._tape.append((rows, outputs_pBK, leaves))
                for name in self._moving:
                    buffers[name][rows].copy_(moved[name].detach())
            outputs.append(outputs_pBK.detach())
        return torch.cat(outputs)

    def backward(self, dy_PBK: Tensor, parameters: Tensors, gradients: Tensors) -> None:
        for rows, outputs, leaves in self._tape:
            # what has no part in the outputs has no gradient
            found = torch.autograd.grad(outputs, list(leaves.values()), dy_PBK[rows], allow_unused=True)
            for name, gradient in zip(leaves, found, strict=True):
                into = gradients[name][rows]
                into.zero_() if gradient is None else into.copy_(gradient)
        self._tape.clear()

    def _run(
        self, parameters: Tensors, buffers: Tensors, x: Tensor, keys: Tensor | None, rates: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        """Outputs and buffers of some slots; a single one needs no vmap."""
        product = self._arithmetic.dtype if keys is None else self._arithmetic.product
        if len(x) > 1:
            return together(self._module, parameters, buffers, x, keys=keys, rates=rates, product=product)
        key, rate = (None if of_all is None else of_all[0] for of_all in (keys, rates))
        functions = Slotwise(key=key, rate=rate, product=product)
        parameters, buffers = ({n: t.squeeze(0) for n, t in named.items()} for named in (parameters, buffers))
        with self._seeded(key):
            outputs, moved = alone(self._module, parameters, buffers, x.squeeze(0), functions)
        return outputs.unsqueeze(0), {n: t.unsqueeze(0) for n, t in moved.items()}

    def _seeded(self, key: Tensor | None) -> AbstractContextManager[None]:
        """What is drawn besides dropout's masks comes from the slot's key as well."""
        return streams.seeded(int(key), "others") if self._found.draws and key is not None else nullcontext()

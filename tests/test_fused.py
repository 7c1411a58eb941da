"""A user's own module, unchanged, trains in a stack as it trains alone; what cannot be is refused by its name."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

from objectives import streams
from objectives.folds import Folds
from objectives.fused import Fused, FusedNetwork
from objectives.hyperparameters import Hyperparameter, Value, completed
from objectives.layers import dropout_factors
from objectives.network import Arithmetic, Build, NetworkError
from objectives.numbers import Draws, Numbers
from objectives.own_network import classification_of
from objectives.population import Population
from objectives.supervised import Supervised, SupervisedTask
from objectives.task import Slot
from tests import modules, toy
from tests.modules import DROPOUT

SAME = 1e-8
SGD: dict[str, Value] = {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9}


def population(family: Supervised, trial: Mapping[str, Value], *, vmapped: bool, batch: int) -> Population:
    full = completed({"batch_size": batch} | dict(trial), family.HYPERPARAMETERS)
    folds = Folds(toy.dataset(), seed=0)
    task = SupervisedTask(folds, full, loss=family.loss, networks=family.networks, precision="float64")
    assert isinstance(task.network, FusedNetwork)
    task.network._found = replace(task.network._found, why_alone="" if vmapped else "this test wants it")
    return Population(task, full, declared=family.HYPERPARAMETERS, epochs=100)


def unfused(build: Build, trial: Mapping[str, Value], *, seed: int, n_updates: int, batch: int) -> dict[str, Tensor]:
    """The weights of a plain module, trained by torch.optim.SGD on the slot's order of examples with its masks."""
    data, root = toy.dataset(), torch.tensor([streams.key(seed, "draws")])
    with streams.seeded(seed, "initial weights"):
        net = build(trial, input_shape=(3, 8, 6), n_outputs=toy.N_CLASSES).double()
    optimizer = torch.optim.SGD(net.parameters(), lr=float(trial["lr"]), momentum=float(trial["momentum"]))  # type: ignore[arg-type]
    per_epoch = toy.N_TRAIN // batch
    for update in range(n_updates):
        order = streams.permutation(
            streams.key(seed, "order", update // per_epoch), toy.N_TRAIN, device=torch.device("cpu")
        )
        index = order[update % per_epoch * batch :][:batch]
        mean, std = (each.double().view(3, 1, 1) for each in (data.mean, data.std))
        x = (data.x_train[index].double() / 255 - mean) / std
        numbers = Numbers([trial], ["dropout"], device=torch.device("cpu"))
        with masked(Draws(numbers=numbers, roots=root, counts=torch.tensor([update]))):
            loss = functional.cross_entropy(net(x), data.y_train[index])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    named = [*net.named_parameters(), *net.named_buffers()]
    return {name: t.detach() for name, t in named if t.is_floating_point()}


@contextmanager
def masked(draws: Draws) -> Iterator[None]:
    """torch's own dropout functions, but with given masks: the k-th use in a forward has those of "dropout k"."""
    used = 0

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        nonlocal used
        used += p > 0
        factors = dropout_factors(
            streams.purposed(draws.keys("module"), f"dropout {used}"),
            draws.numbers["dropout"],
            input.numel(),
            dtype=input.dtype,
        )
        return input * factors.view(input.shape) if p > 0 else input

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Any, dropout_p: float, is_causal: bool) -> Tensor:
        assert mask is None
        assert not is_causal
        return dropout(torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1), dropout_p) @ v

    with pytest.MonkeyPatch.context() as patch:
        if draws.numbers.used("dropout"):
            patch.setattr(functional, "dropout", dropout)
            patch.setattr(functional, "scaled_dot_product_attention", attention)
        yield


CASES = [
    pytest.param(modules.perceptron, 16, 20, id="perceptron"),
    pytest.param(modules.transformer, 16, 20, id="transformer"),
    pytest.param(modules.odd, 16, 20, id="odd"),
    pytest.param(modules.residual, 8, 3, id="resnet18"),
    pytest.param(modules.residual, 8, 20, id="resnet18-20", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("vmapped", [True, False], ids=["together", "one by one"])
@pytest.mark.parametrize(("build", "batch", "n_updates"), CASES)
def test_fused_slots_equal_plain_modules_each_with_its_own_dropout_and_admitted_late(
    build: Build, batch: int, n_updates: int, vmapped: bool
) -> None:
    family = classification_of(build, DROPOUT)
    trials = [SGD | {"dropout": 0.3 * i, "lr": 0.005 * (i + 1)} for i in range(2)]
    trained = population(family, SGD, vmapped=vmapped, batch=batch)
    trained.admit(1, hyperparameters=trials[1] | {"batch_size": batch}, seed=1, fold=None)
    trained.update()
    trained.admit(0, hyperparameters=trials[0] | {"batch_size": batch}, seed=0, fold=None)
    for _ in range(n_updates):
        trained.update()
    for i, trial in enumerate(trials):
        reference = unfused(build, trial, seed=i, n_updates=n_updates + i, batch=batch)
        assert toy.difference(trained.weights(i), reference) < SAME, i


# ---------------------------------------------------------------- what cannot be stacked, and what cannot be trained


class Changed(nn.Module):
    """A perceptron with something more in its way."""

    def __init__(self, extra: Callable[[Tensor], Tensor] | nn.Module, n_outputs: int) -> None:
        super().__init__()
        self.before, self.extra, self.after = nn.Linear(144, 8), extra, nn.Linear(8, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.after(self.extra(self.before(x.flatten(1))))
        return logits


class LastState(nn.LSTM):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        outputs: Tensor = super().forward(x.unsqueeze(1))[0][:, -1]
        return outputs


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.mean() > 0 else -x


class Counting(nn.Module):
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return x


def network(extra: Callable[[float], Any]) -> FusedNetwork:
    def build(given: Mapping[str, Any], *, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
        return Changed(extra(given["dropout"]), n_outputs)

    build.__qualname__ = "build"
    found = Fused(build, DROPOUT).stacked(
        {"dropout": 0.0},
        input_shape=(3, 8, 6),
        n_outputs=4,
        arithmetic=Arithmetic.of("float64"),
        device=torch.device("cpu"),
    )
    assert isinstance(found, FusedNetwork)
    return found


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (lambda rate: LastState(8, 8, dropout=0.0, batch_first=True), r'"extra" \(LastState\).*lstm'),
        (lambda rate: Branching(), r'"extra" \(Branching\).*data-dependent control flow'),
        (lambda rate: StochasticDepth(0.5, "row"), r'"extra" \(StochasticDepth\).*random'),
    ],
    ids=["lstm", "branching", "stochastic depth"],
)
def test_module_that_has_no_stacked_form_trains_one_by_one_and_says_which_layer(
    extra: Callable[[float], Any], named: str
) -> None:
    found = network(extra)
    assert re.search(named, found.why_alone)
    x, weights = torch.randn(2, 5, 3, 8, 6, dtype=torch.float64), []
    for i in range(2):
        slot = Slot(number=i, seed=i, fold=None, hyperparameters={"dropout": 0.0})
        weights.append({n: t.double() for n, t in found.initial(slot)[0].items()})
    stack = {n: torch.stack([weights[0][n], weights[1][n]]) for n in weights[0]}
    numbers = Numbers([{"dropout": 0.0}] * 2, ["dropout"], device=torch.device("cpu"))
    draws = Draws(numbers=numbers, roots=torch.tensor([5, 6]), counts=torch.zeros(2, dtype=torch.int64))
    outputs = found.forward(x, stack, {}, draws=draws)
    own = Draws(numbers=numbers, roots=torch.tensor([6]), counts=torch.zeros(1, dtype=torch.int64))
    before = torch.get_rng_state()
    alone = found.forward(x[1:], {n: t[1:] for n, t in stack.items()}, {}, draws=own)
    assert alone.equal(outputs[1:])
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            lambda rate: nn.BatchNorm1d(8, momentum=None),
            r'"extra" \(BatchNorm1d\).*momentum = None.*Use momentum = 0.1',
        ),
        (lambda rate: nn.LazyLinear(8), "extra.weight has no shape yet"),
        (lambda rate: nn.Dropout(rate / 2), r"rate of dropout 1 must be .*Pass it on as it is"),
        (lambda rate: nn.Linear(7, 8), r'"extra" \(Linear\) cannot be trained on inputs of shape \(4, 3, 8, 6\)'),
        (lambda rate: Counting(), "extra.seen changes in training"),
        (lambda rate: lambda x: x.repeat(2, 1), r"outputs must be .*\(4, 4\), got \(8, 4\)"),
    ],
    ids=["momentum", "lazy", "half the rate", "shape", "integers", "outputs"],
)
def test_module_that_cannot_be_trained_is_refused_by_name(extra: Callable[[float], Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        network(extra)


def test_constant_rates_and_rates_of_functions_are_kept_apart_from_the_slots_own() -> None:
    assert network(lambda rate: lambda x: functional.dropout(nn.Dropout(0.1)(x), rate)).why_alone == ""


def test_build_without_a_name_is_refused() -> None:
    with pytest.raises(NetworkError, match="by def or class"):
        classification_of(lambda given, *, input_shape, n_outputs: nn.Linear(1, 1))


def test_hyperparameters_are_structural_but_dropout_and_those_of_training() -> None:
    width = Hyperparameter(kind="int", default=8)
    found = classification_of(modules.perceptron, DROPOUT | {"width": width, "lr": width}).HYPERPARAMETERS
    assert [found[name].structural for name in ("width", "dropout", "lr", "batch_size")] == [True, False, False, True]

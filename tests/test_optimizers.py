"""Every optimizer, schedule and penalty against torch's own, on one trial trained as a plain module."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from objectives import models, optimizers
from objectives.captured import Captured
from objectives.compact import Compact
from objectives.flat import Layout
from objectives.hyperparameters import HyperparameterError, Value
from objectives.optimizers import RowUpdate, StackedStep
from objectives.rows import MakeRows
from objectives.streams import generator, key, permutation
from tests import toy

EPOCHS = 10
N_UPDATES = EPOCHS * toy.UPDATES_PER_EPOCH


def trained_by_torch(
    trial: dict[str, Value],
    optimizer: Callable[[list[dict[str, object]]], Optimizer],
    *,
    decay: float = 0.0,
    l1: float = 0.0,
    clip_norm: float = 0.0,
    schedule: Callable[[Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The textbook loop over the same data in the same order; `decay` and `l1` are for what is not exempt."""
    data, full = toy.dataset(), toy.full(trial)
    net = models.architecture(full, input_shape=(3, 8, 6), n_outputs=toy.N_CLASSES)
    draw = generator(seed, "initial weights")
    weights = models.initial(net, full, generator=draw)
    module = models.single(net).double()
    module.load_state_dict(models.plain(weights[0] | weights[1], batch_norm=net.batch_norm), strict=False)
    exempt = [
        full["exempt"] != "none" and (p.ndim == 1 or (full["exempt"] == "output" and name == "output.weight"))
        for name, p in module.named_parameters()
    ]
    concerned, spared = (
        [p for p, own in zip(module.parameters(), exempt, strict=True) if own == wanted] for wanted in (False, True)
    )
    groups: list[dict[str, object]] = [
        {"params": concerned, "weight_decay": decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    stepper = optimizer(groups)
    scheduler = schedule(stepper) if schedule else None
    criterion = nn.CrossEntropyLoss(label_smoothing=float(full["label_smoothing"]))  # type: ignore[arg-type]
    mean, std = (t.double().view(3, 1, 1) for t in (data.mean, data.std))
    for epoch in range(EPOCHS):
        order = permutation(key(seed, "order", epoch), toy.N_TRAIN, device=torch.device("cpu"))
        for index in order[: toy.UPDATES_PER_EPOCH * toy.BATCH].view(-1, toy.BATCH):
            loss = criterion(module((data.x_train[index].double() / 255 - mean) / std), data.y_train[index])
            loss = loss + l1 * sum(p.abs().sum() for p in concerned)
            stepper.zero_grad()
            loss.backward()
            if clip_norm:
                nn.utils.clip_grad_norm_(module.parameters(), clip_norm)
            stepper.step()
            if scheduler:
                scheduler.step()
    return {n: t for n, t in module.state_dict().items() if "num_batches" not in n}


def compare(trial: dict[str, Value], reference: dict[str, Tensor]) -> float:
    batch_norm = bool(trial.get("batch_norm", False))
    return toy.difference(models.plain(toy.alone(trial, seed=0, epochs=EPOCHS), batch_norm=batch_norm), reference)


@pytest.mark.parametrize(("model", "norm_position"), [("mlp", "before"), ("mlp", "after"), ("cnn", "before")])
@pytest.mark.parametrize("exempt", ["none", "biases_and_norms"])
@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_trials_with_and_without_batch_norm_train_together_as_torch_trains_each(
    kind: str, exempt: str, model: str, norm_position: str
) -> None:
    """The decay of torch's Adam and SGD is a penalty, as our l2."""
    own: dict[str, Value] = {"weight_decay": 0.2} if kind == "adamw" else {"l2": 0.1}
    shared: dict[str, Value] = {"model": model, "width": 6, "norm_position": norm_position, "optimizer": kind}
    trials = [shared | own | {"exempt": exempt, "l1": 1e-3, "batch_norm": seed % 2 == 0} for seed in range(3)]
    by_torch = {
        "adamw": lambda groups: AdamW(groups, lr=1e-2),
        "adam": lambda groups: Adam(groups, lr=1e-2),
        "sgd": lambda groups: SGD(groups, lr=1e-2, momentum=0.9),
    }
    kinds: list[MakeRows] = [Compact, partial(Captured, room=4)]
    populations = [toy.population(shared, rows=rows) for rows in kinds]
    for trained in populations:
        for seed, trial in enumerate(trials):
            toy.admit(trained, seed, trial, seed=seed)
        toy.train(trained, epochs=EPOCHS)
    for seed, trial in enumerate(trials):
        reference = trained_by_torch(trial, by_torch[kind], decay=0.2, l1=1e-3, seed=seed)
        for trained in populations:
            found = models.plain(trained.weights(seed), batch_norm=bool(trial["batch_norm"]))
            assert toy.difference(found, reference) < 1e-8


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_adamw_equals_torch(model: str, batch_norm: bool) -> None:
    trial: dict[str, Value] = {"model": model, "width": 6, "batch_norm": batch_norm, "weight_decay": 0.2}
    reference = trained_by_torch(trial, lambda groups: AdamW(groups, lr=1e-2), decay=0.2)
    assert compare(trial | {"optimizer": "adamw"}, reference) < 1e-8


def test_adam_with_l2_equals_torch_with_twice_its_weight_decay() -> None:
    reference = trained_by_torch({}, lambda groups: Adam(groups, lr=1e-2), decay=0.02)
    assert compare({"optimizer": "adam", "l2": 0.01}, reference) < 1e-8


def test_momentum_is_beta1_of_adam() -> None:
    reference = trained_by_torch({}, lambda groups: Adam(groups, lr=1e-2, betas=(0.7, 0.999)))
    assert compare({"optimizer": "adam", "momentum": 0.7}, reference) < 1e-8


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_with_l2_equals_torch_with_twice_its_weight_decay(momentum: float, nesterov: bool) -> None:
    def optimizer(groups: list[dict[str, object]]) -> Optimizer:
        return SGD(groups, lr=1e-2, momentum=momentum, nesterov=nesterov)

    trial: dict[str, Value] = {"optimizer": "sgd", "momentum": momentum, "nesterov": nesterov, "l2": 0.02}
    assert compare(trial, trained_by_torch({}, optimizer, decay=0.04)) < 1e-8


def test_l2_under_sgd_without_momentum_equals_weight_decay_of_twice_its_strength() -> None:
    plain: dict[str, Value] = {"optimizer": "sgd", "momentum": 0.0}
    by_decay = toy.alone(plain | {"weight_decay": 0.1}, seed=0)
    assert toy.difference(toy.alone(plain | {"l2": 0.05}, seed=0), by_decay) < 1e-8
    assert toy.difference(toy.alone(plain, seed=0), by_decay) > 1e-3


def test_l2_under_adam_is_not_weight_decay() -> None:
    by_decay = toy.alone({"weight_decay": 0.1}, seed=0)
    assert toy.difference(toy.alone({"l2": 0.05}, seed=0), by_decay) > 1e-2


def test_exempt_output_is_neither_decayed_nor_penalized() -> None:
    output: dict[str, Value] = {"exempt": "output"}
    reference = trained_by_torch(output, lambda groups: Adam(groups, lr=1e-2), decay=0.02)
    assert compare({"optimizer": "adam", "l2": 0.01, **output}, reference) < 1e-8
    assert compare({"optimizer": "adam", "l2": 0.01}, reference) > 1e-3
    reference = trained_by_torch(output, lambda groups: AdamW(groups, lr=1e-2), decay=0.2)
    assert compare({"optimizer": "adamw", "weight_decay": 0.2, **output}, reference) < 1e-8


def test_l1_equals_a_penalty_in_the_loss() -> None:
    reference = trained_by_torch({}, lambda groups: SGD(groups, lr=1e-2), l1=0.003)
    assert compare({"optimizer": "sgd", "momentum": 0.0, "l1": 0.003}, reference) < 1e-8


def test_clipping_equals_torch() -> None:
    reference = trained_by_torch({}, lambda groups: SGD(groups, lr=1e-2), clip_norm=0.5)
    assert compare({"optimizer": "sgd", "momentum": 0.0, "clip_norm": 0.5}, reference) < 1e-8


def test_label_smoothing_equals_torch() -> None:
    trial: dict[str, Value] = {"label_smoothing": 0.2}
    reference = trained_by_torch(trial, lambda groups: AdamW(groups, lr=1e-2))
    assert compare(trial, reference) < 1e-8


@pytest.mark.parametrize(
    ("trial", "schedule"),
    [
        (
            {"schedule": "one_cycle"},
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1e-2, total_steps=N_UPDATES, cycle_momentum=False),
        ),
        ({"schedule": "cosine"}, lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, N_UPDATES)),
        (
            {"schedule": "step", "step_size": 2, "gamma": 0.5},
            lambda o: torch.optim.lr_scheduler.StepLR(o, 2 * toy.UPDATES_PER_EPOCH, gamma=0.5),
        ),
        (
            {"warmup": 0.2},
            lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda i: min((i + 1) / (0.2 * N_UPDATES + 1), 1)),
        ),
    ],
    ids=["one_cycle", "cosine", "step", "warmup"],
)
def test_schedule_equals_torch(
    trial: dict[str, Value], schedule: Callable[[Optimizer], torch.optim.lr_scheduler.LRScheduler]
) -> None:
    reference = trained_by_torch({}, lambda groups: AdamW(groups, lr=1e-2), schedule=schedule)
    assert compare(trial, reference) < 1e-8


@pytest.mark.parametrize(("kind", "nesterov"), [("adamw", False), ("adam", False), ("sgd", False), ("sgd", True)])
def test_stacked_operations_equal_the_fused_kernels(kind: str, nesterov: bool) -> None:
    draw, n, n_weights = torch.Generator().manual_seed(0), 25, 20
    decays = [0.0, 0.0, 0.0] if kind == "adam" else [0.0, 0.1, 0.2]
    slots = [
        toy.full({"optimizer": kind, "nesterov": nesterov, "momentum": 0.4 * row, "weight_decay": decay})
        | {"exempt": "none" if row == 2 else "biases_and_norms"}
        for row, decay in enumerate(decays)
    ]
    start = torch.randn(3, n, generator=draw, dtype=torch.float64)
    both = [[start.clone(), *(torch.zeros_like(start) for _ in range(1 + optimizers.n_moments(kind)))] for _ in (0, 1)]
    layout = Layout(shapes={"weight": (4, 5), "bias": (5,)})
    updates = [
        RowUpdate.of(
            slot, layout, [p, *moments], gradients=layout.views(g), copies={}, scratch=torch.empty(0).to(p.dtype)
        )
        for slot, p, g, *moments in zip(slots, *both[0], strict=True)
    ]
    lrs, offsets = torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64), torch.tensor([0, 5, 9])
    for count in range(1, 20):
        counts = offsets + count
        gradients = torch.randn(3, n, generator=draw, dtype=torch.float64)
        for rows in both:
            rows[1].copy_(gradients)
        for row, update in enumerate(updates):
            update(lr=lrs[row].item(), count=counts[row])
        p, g, *moments = both[1]
        step = StackedStep(
            lrs=lrs,
            momenta=torch.tensor([0.0, 0.4, 0.8], dtype=torch.float64),
            weight_decays=torch.tensor(decays, dtype=torch.float64) if any(decays) else None,
            whole=torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64),
            counts=counts,
        )
        optimizers.update_stacked(kind, p, g, moments, step, n_weights=n_weights, nesterov=nesterov)
    assert torch.allclose(both[0][0], both[1][0], rtol=1e-9, atol=1e-12)


def test_nesterov_without_sgd_is_refused() -> None:
    with pytest.raises(HyperparameterError, match="nesterov"):
        optimizers.check(toy.full({"nesterov": True}))

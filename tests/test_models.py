"""Stacked networks equal plain modules; structure follows the hyperparameters."""

import itertools
import math

import pytest
import torch

from objectives import models
from objectives.flat import Tensors
from objectives.hyperparameters import HyperparameterError, Value
from objectives.numbers import Draws, Numbers
from objectives.streams import generator
from objectives.task import Slot
from tests import toy

IMAGE = (3, 8, 6)
NORMS, POSITIONS = ("none", "before", "after"), ("before", "after")
COMPANIES = ((False, False, False), (True, True, True), (False, True, True), (True, False, False))
"""Who has BatchNorm."""


def none_drawn(company: tuple[bool, ...], *, training: bool, stays: bool) -> Draws:
    slots = [toy.full({"batch_norm": batch_norm}) for batch_norm in company]
    names, switches = ["dropout", "batch_norm"], ["batch_norm"]
    numbers = Numbers(slots, names, device=torch.device("cpu"), switches=switches, stays=stays)
    zeros = torch.zeros(len(slots), dtype=torch.int64)
    return Draws(numbers=numbers, roots=zeros, counts=zeros) if training else Draws(numbers=numbers)


def architecture(hyperparameters: dict[str, Value], input_shape: tuple[int, ...] = IMAGE) -> models.Architecture:
    return models.architecture(toy.full(hyperparameters), input_shape=input_shape, n_outputs=4)


def drawn(net: models.Architecture, seed: int, initialization: str = "kaiming") -> tuple[Tensors, Tensors]:
    draw = generator(seed, "initial weights")
    own: dict[str, Value] = {"initialization": initialization, "batch_norm": net.batch_norm}
    given = toy.full({"init_std": 0.5, "init_bound": 0.3, **own})
    found = models.initial(net, given, generator=draw)
    return tuple({n: t.double() for n, t in tensors.items()} for tensors in found)  # type: ignore[return-value]


@pytest.mark.parametrize("stays", [False, True], ids=["by position", "by mask"])
@pytest.mark.parametrize("company", COMPANIES, ids=str)
@pytest.mark.parametrize(("model", "norm_position"), list(itertools.product(("mlp", "cnn"), POSITIONS)))
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "tanh"])
def test_outputs_and_gradients_of_the_stack_equal_those_of_plain_modules(
    model: str, norm_position: str, company: tuple[bool, ...], activation: str, stays: bool
) -> None:
    structure: dict[str, Value] = {"model": model, "hidden": (5, 4, 7), "activation": activation}
    assert_equal_to_plain_modules({**structure, "norm_position": norm_position}, company, stays=stays)


@pytest.mark.parametrize("company", COMPANIES, ids=str)
@pytest.mark.parametrize("norm_position", POSITIONS)
def test_so_do_those_of_a_cnn_that_pools_where_listed_and_ends_in_dense_layers(
    norm_position: str, company: tuple[bool, ...]
) -> None:
    listed: dict[str, Value] = {"model": "cnn", "hidden": (5, 4, 3), "pool": (2,), "dense": (6, 5)}
    assert_equal_to_plain_modules({**listed, "norm_position": norm_position}, company)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_so_do_those_of_networks_without_an_output_for_the_first_class(model: str) -> None:
    assert_equal_to_plain_modules({"model": model, "reference_class": True})


def assert_equal_to_plain_modules(
    structure: dict[str, Value], company: tuple[bool, ...] = (False, False, False), *, stays: bool = False
) -> None:
    nets = [architecture({**structure, "batch_norm": batch_norm}) for batch_norm in company]
    net, slots = nets[0], [drawn(own, seed) for seed, own in enumerate(nets)]
    parameters, buffers = (
        {name: torch.stack([slot[i][name] for slot in slots]) for name in slots[0][i]} for i in (0, 1)
    )
    x = torch.randn(3, 9, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    network = models.Network(net, product=torch.float64, device=torch.device("cpu"))
    gradients = {n: t + 1 for n, t in parameters.items()}
    untrained = {name: stack.clone() for name, stack in buffers.items()}
    for training in (True, False):  # training moves the running statistics that eval mode then uses
        y = network.forward(x, parameters, buffers, draws=none_drawn(company, training=training, stays=stays))
        dy = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        if training:
            network.backward(dy.clone(), parameters, gradients)
        for p, slot in enumerate(slots):
            module = models.single(nets[p]).double().train(training)
            found = module.load_state_dict(models.plain(slot[0] | slot[1], batch_norm=company[p]), strict=False)
            assert not found.unexpected_keys
            assert all("num_batches" in name for name in found.missing_keys)
            expected = module(x[p])
            assert torch.allclose(y[p], expected, rtol=1e-9, atol=1e-12)
            slot[1].update({n: t for n, t in module.state_dict().items() if "running" in n})
            if training:
                expected.backward(dy[p])
                wanted = {name: parameter.grad for name, parameter in module.named_parameters()}
                own = models.plain({name: gradient[p] for name, gradient in gradients.items()}, batch_norm=company[p])
                for name, gradient in own.items():
                    assert torch.allclose(gradient, wanted[name], rtol=1e-8, atol=1e-11), name  # type: ignore[arg-type]
            elif not company[p]:
                assert all(stack[p].equal(untrained[name][p]) for name, stack in buffers.items())
    for p in (p for p, own in enumerate(company) if not own):  # what a slot does not use stays zero
        parts = ("weight",) if net.norm_position == "before" else ("weight", "bias")
        unused = [f"norm{i + 1}.{part}" for i in range(len(net.hidden)) for part in parts]
        assert all(stacks[name][p].eq(0).all() for stacks in (parameters, gradients) for name in unused)


def test_widths_of_an_mlp_halve_and_channels_of_a_cnn_double() -> None:
    assert architecture({"width": 100, "depth": 3}).hidden == (100, 50, 25)
    assert architecture({"width": 2, "depth": 3}).hidden == (2, 1, 1)
    assert architecture({"model": "cnn", "width": 8, "depth": 3}).hidden == (8, 16, 32)


def test_listed_layers_replace_width_and_depth() -> None:
    assert architecture({"hidden": (500, 400), "width": 3, "depth": 1}).hidden == (500, 400)


def test_depth_zero_is_a_linear_model() -> None:
    assert models.shapes(architecture({"depth": 0})) == {"output.weight": (4, 144), "output.bias": (4,)}


@pytest.mark.parametrize(("model", "norm"), list(itertools.product(("mlp", "cnn"), NORMS)))
def test_number_of_parameters_equals_the_plain_modules(model: str, norm: str) -> None:
    position = "before" if norm == "none" else norm
    net = architecture({"model": model, "batch_norm": norm != "none", "norm_position": position, "depth": 3})
    assert models.n_parameters(net) == sum(p.numel() for p in models.single(net).parameters())


def test_textbook_cnn_has_the_shapes_of_the_textbook() -> None:
    listed: dict[str, Value] = {"model": "cnn", "hidden": (16, 32, 64), "pool": (2, 3), "dense": (100,)}
    shapes = models.shapes(architecture({**listed, "batch_norm": True}, input_shape=(1, 28, 28)))
    assert [shapes[f"layer{i}.weight"] for i in (1, 2, 3, 4)] == [
        (16, 3, 3, 1),
        (32, 3, 3, 16),
        (64, 3, 3, 32),
        (64 * 7 * 7, 100),
    ]


def test_pools_and_dense_layers_that_do_not_fit_are_refused() -> None:
    for given in ({"pool": (3,)}, {"hidden": (4,) * 9, "pool": (1, 2, 3, 4)}, {"model": "mlp", "dense": (5,)}):
        with pytest.raises(HyperparameterError, match="pool ="):
            architecture({"model": "cnn", **given})  # type: ignore[dict-item]


def test_one_output_against_a_reference_class_is_binary_cross_entropy() -> None:
    net = models.architecture(toy.full({"reference_class": True}), input_shape=(7,), n_outputs=2)
    module, x, y = models.single(net), torch.randn(9, 7), torch.arange(9) % 2
    logits, outputs = module[:-1](x).squeeze(1), module(x)
    assert models.shapes(net)["output.bias"] == (1,)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, y.float())
    assert torch.nn.functional.cross_entropy(outputs, y).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("norm_position", POSITIONS)
def test_shapes_of_a_stack_and_the_weights_drawn_are_the_same_with_and_without_batch_norm(norm_position: str) -> None:
    nets = [architecture({"norm_position": norm_position, "batch_norm": own}) for own in (False, True)]
    assert models.shapes(nets[0]) == models.shapes(nets[1])
    without, having = (drawn(net, seed=3)[0] for net in nets)
    assert all(without[name].equal(having[name]) for name in having if not name.startswith("norm"))


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("initialization", ["kaiming", "xavier", "normal", "uniform"])
def test_initial_weights_have_the_spread_of_torch_init(model: str, initialization: str) -> None:
    net = architecture({"model": model, "width": 300, "depth": 1, "activation": "relu"})
    weight = models.plain(drawn(net, 0, initialization)[0], batch_norm=False)["layer1.weight"]
    reference = torch.empty_like(weight)
    draw = torch.Generator().manual_seed(0)
    if initialization == "kaiming":
        torch.nn.init.kaiming_normal_(reference, nonlinearity="relu", generator=draw)
    elif initialization == "xavier":
        torch.nn.init.xavier_normal_(reference, gain=math.sqrt(2), generator=draw)
    elif initialization == "normal":
        torch.nn.init.normal_(reference, std=0.5, generator=draw)
    else:
        torch.nn.init.uniform_(reference, -0.3, 0.3, generator=draw)
        assert weight.abs().max() <= 0.3
    assert weight.std().item() == pytest.approx(reference.std().item(), rel=0.05)


def test_cnn_refuses_vectors() -> None:
    with pytest.raises(HyperparameterError, match="needs images"):
        architecture({"model": "cnn"}, input_shape=(7,))


@pytest.mark.parametrize(
    "structure",
    [
        {"model": "mlp", "hidden": (9, 5)},
        {"model": "mlp", "hidden": (9, 5), "batch_norm": True},
        {"model": "mlp", "hidden": (9, 5), "batch_norm": True, "norm_position": "after"},
        {"model": "cnn", "hidden": (4, 6), "dense": (5,), "norm_position": "after"},
    ],
    ids=str,
)
def test_torch_s_own_weights_are_those_of_modules_built_one_after_another(structure: dict[str, Value]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        built = [models.single(architecture(structure)) for _ in range(3)]
    n = sum(p.numel() for name, p in built[0].named_parameters() if not name.startswith("norm"))
    given = toy.full({**structure, "initialization": "torch", "init_seed": 3, "init_skip": 2 * n})
    before = torch.get_rng_state()
    net = models.Network(architecture(structure), product=torch.float32, device=torch.device("cpu"))
    parameters, buffers = net.initial(Slot(number=0, seed=7, fold=None, hyperparameters=given))
    expected = built[2].state_dict()
    for name, tensor in net.plain(parameters | buffers, given).items():
        assert tensor.equal(expected[name]), name
    assert torch.get_rng_state().equal(before)


def test_numbers_are_skipped_of_a_named_seed_only() -> None:
    slot = Slot(number=0, seed=7, fold=None, hyperparameters=toy.full({"init_skip": 12}))
    with pytest.raises(HyperparameterError, match="init_skip = 12: has no effect without init_seed"):
        models.Network(architecture({}), product=torch.float32, device=torch.device("cpu")).initial(slot)

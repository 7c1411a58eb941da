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
from tests import toy

IMAGE = (3, 8, 6)
NORMS = ("none", "before", "after")


def none_drawn(n_slots: int) -> Draws:
    device, zeros = torch.device("cpu"), torch.zeros(n_slots, dtype=torch.int64)
    return Draws(numbers=Numbers([toy.full({})] * n_slots, ["dropout"], device=device), roots=zeros, counts=zeros)


def architecture(hyperparameters: dict[str, Value], input_shape: tuple[int, ...] = IMAGE) -> models.Architecture:
    return models.architecture(toy.full(hyperparameters), input_shape=input_shape, n_outputs=4)


def drawn(net: models.Architecture, seed: int, initialization: str = "kaiming") -> tuple[Tensors, Tensors]:
    draw = generator(seed, "initial weights")
    given = toy.full({"initialization": initialization, "init_std": 0.5, "init_bound": 0.3})
    found = models.initial(net, given, generator=draw)
    return tuple({n: t.double() for n, t in tensors.items()} for tensors in found)  # type: ignore[return-value]


@pytest.mark.parametrize(("model", "norm"), list(itertools.product(("mlp", "cnn"), NORMS)))
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "gelu", "tanh"])
def test_outputs_and_gradients_of_the_stack_equal_those_of_plain_modules(
    model: str, norm: str, activation: str
) -> None:
    assert_equal_to_plain_modules(
        {
            "model": model,
            "hidden": (5, 4, 7),
            "batch_norm": norm != "none",
            "norm_position": "before" if norm == "none" else norm,
            "activation": activation,
        }
    )


@pytest.mark.parametrize("norm", NORMS)
def test_so_do_those_of_a_cnn_that_pools_where_listed_and_ends_in_dense_layers(norm: str) -> None:
    position = "before" if norm == "none" else norm
    listed: dict[str, Value] = {"model": "cnn", "hidden": (5, 4, 3), "pool": (2,), "dense": (6, 5)}
    assert_equal_to_plain_modules({**listed, "batch_norm": norm != "none", "norm_position": position})


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_so_do_those_of_networks_without_an_output_for_the_first_class(model: str) -> None:
    assert_equal_to_plain_modules({"model": model, "reference_class": True})


def assert_equal_to_plain_modules(hyperparameters: dict[str, Value]) -> None:
    net = architecture(hyperparameters)
    slots = [drawn(net, seed) for seed in range(3)]
    parameters, buffers = (
        {name: torch.stack([slot[i][name] for slot in slots]) for name in slots[0][i]} for i in (0, 1)
    )
    x = torch.randn(3, 9, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    network, gradients = models.Network(net, product=torch.float64), {n: t.clone() for n, t in parameters.items()}
    for training in (True, False):  # training moves the running statistics that eval mode then uses
        y = network.forward(x, parameters, buffers, draws=none_drawn(3) if training else None)
        dy = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        if training:
            network.backward(dy.clone(), parameters, gradients)
        for p, slot in enumerate(slots):
            module = models.single(net).double().train(training)
            module.load_state_dict(models.plain(slot[0] | slot[1]), strict=False)
            expected = module(x[p])
            assert torch.allclose(y[p], expected, rtol=1e-9, atol=1e-12)
            slot[1].update({n: t for n, t in module.state_dict().items() if "running" in n})
            if training:
                expected.backward(dy[p])
                wanted = {name: parameter.grad for name, parameter in module.named_parameters()}
                own = models.plain({name: gradient[p] for name, gradient in gradients.items()})
                for name, gradient in own.items():
                    assert torch.allclose(gradient, wanted[name], rtol=1e-8, atol=1e-11), name  # type: ignore[arg-type]


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


def test_layer_has_no_bias_only_where_batch_norm_follows_at_once() -> None:
    assert "layer1.bias" in models.shapes(architecture({}))
    assert "layer1.bias" not in models.shapes(architecture({"batch_norm": True}))
    assert "layer1.bias" in models.shapes(architecture({"batch_norm": True, "norm_position": "after"}))


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("initialization", ["kaiming", "xavier", "normal", "uniform"])
def test_initial_weights_have_the_spread_of_torch_init(model: str, initialization: str) -> None:
    net = architecture({"model": model, "width": 300, "depth": 1, "activation": "relu"})
    weight = models.plain(drawn(net, 0, initialization)[0])["layer1.weight"]
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
